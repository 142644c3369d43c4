"""Where things stand in IPv4, IPv6, TCP, UDP, ICMP and virtio_net headers, and what the numbers mean.

Offsets are in bytes from the start of their own header; all fields are big-endian but virtio's. This file is
never compiled: a compiled module takes what it needs as C integers, with
`X = cython.declare(cython.int, header.X)`.
"""

from __future__ import annotations

from enum import IntEnum

# struct virtio_net_hdr (virtio 1.2 §5.1.6.1), in front of each packet of a TUN with IFF_VNET_HDR.
# Its 16-bit fields are in the machine's own byte order.
VNET_FLAGS = 0
VNET_GSO_TYPE = 1
VNET_HEADER_LENGTH = 2  # headers' bytes, from the start of the packet
VNET_GSO_SIZE = 4  # payload bytes of each segment
VNET_CSUM_START = 6  # where the checksum's range starts, from the start of the packet
VNET_CSUM_OFFSET = 8  # where the checksum stands, from VNET_CSUM_START
VNET_LENGTH = 10

VNET_NEEDS_CSUM = 1  # flags: the checksum field holds the folded sum of the pseudo-header only
VNET_DATA_VALID = 2  # flags: the checksum was checked
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_UDP = 3  # IP fragments of one datagram (UFO)
GSO_TCPV6 = 4
GSO_UDP_L4 = 5  # many datagrams of one flow (USO)
GSO_ECN = 0x80  # or-ed to a TCP type: the first segment alone carries CWR

# IPv4 (RFC 791 §3.1)
IP4_TOS = 1
IP4_TOTAL_LENGTH = 2
IP4_IDENTIFICATION = 4
IP4_FRAGMENT = 6  # 3 flag bits, then 13 bits of offset in units of 8 bytes
IP4_TTL = 8
IP4_PROTOCOL = 9
IP4_CHECKSUM = 10
IP4_SOURCE = 12
IP4_TARGET = 16
IP4_LENGTH = 20  # without options
IP4_DONT_FRAGMENT = 0x4000
IP4_MORE_FRAGMENTS = 0x2000
IP4_OFFSET_MASK = 0x1FFF
IP4_OPTION_END = 0
IP4_OPTION_NOP = 1
IP4_OPTION_LSRR = 131  # loose source route
IP4_OPTION_SSRR = 137  # strict source route

# IPv6 (RFC 8200 §3)
IP6_PAYLOAD_LENGTH = 4
IP6_NEXT_HEADER = 6
IP6_HOP_LIMIT = 7
IP6_SOURCE = 8
IP6_TARGET = 24
IP6_LENGTH = 40
IP6_FRAGMENT_LENGTH = 8  # of the fragment header (RFC 8200 §4.5)
IP6_OPTION_JUMBO = 0xC2  # RFC 2675 §2

# TCP (RFC 9293 §3.1)
TCP_SEQUENCE = 4
TCP_ACKNOWLEDGEMENT = 8
TCP_DATA_OFFSET = 12  # high four bits, in units of 4 bytes
TCP_FLAGS = 13
TCP_WINDOW = 14
TCP_CHECKSUM = 16
TCP_LENGTH = 20  # without options
TCP_FIN = 0x01
TCP_SYN = 0x02
TCP_RST = 0x04
TCP_PSH = 0x08
TCP_ACK = 0x10
TCP_URG = 0x20
TCP_ECE = 0x40
TCP_CWR = 0x80

# UDP (RFC 768). Source and target port stand at 0 and 2 in TCP and UDP alike.
SOURCE_PORT = 0
TARGET_PORT = 2
UDP_DATAGRAM_LENGTH = 4
UDP_CHECKSUM = 6
UDP_LENGTH = 8

# ICMP (RFC 792) and ICMPv6 (RFC 4443 §2.1)
ICMP_TYPE = 0
ICMP_CODE = 1
ICMP_CHECKSUM = 2
ICMP_REST = 4  # echo: identifier and sequence number; errors: MTU, pointer or nothing
ICMP_LENGTH = 8


class Protocol(IntEnum):
    """IP protocol numbers and IPv6 next headers (the IANA registry of both)."""

    HOP_BY_HOP = 0
    ICMP = 1
    IPV4 = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    ROUTING = 43
    FRAGMENT = 44
    ESP = 50
    AH = 51
    ICMPV6 = 58
    NONE = 59
    DESTINATION = 60


class Icmp4(IntEnum):
    """ICMP types (RFC 792)."""

    ECHO_REPLY = 0
    UNREACHABLE = 3
    SOURCE_QUENCH = 4
    REDIRECT = 5
    ECHO = 8
    TIME_EXCEEDED = 11
    PARAMETER = 12


class Icmp6(IntEnum):
    """ICMPv6 types (RFC 4443); those under 128 are errors."""

    UNREACHABLE = 1
    TOO_BIG = 2
    TIME_EXCEEDED = 3
    PARAMETER = 4
    ECHO = 128
    ECHO_REPLY = 129
    REDIRECT = 137
