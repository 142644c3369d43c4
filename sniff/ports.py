"""TCP ports whose protocol has the server speak first, so that waiting for the client is time lost."""

from __future__ import annotations

__all__ = ["speaks_first"]

_SERVER_FIRST = frozenset(
    {
        13,  # daytime
        17,  # quote of the day
        19,  # chargen
        21,  # FTP control: greeting
        22,  # SSH: both send their version, and many clients wait for the server's
        23,  # Telnet: the server opens the option negotiation
        24,  # LMTP
        25,  # SMTP: greeting
        37,  # time
        110,  # POP3: greeting
        119,  # NNTP: greeting
        143,  # IMAP: greeting
        587,  # SMTP submission: greeting
        873,  # rsync daemon: version
        1109,  # Kerberised POP
        2121,  # FTP, the usual alternative
        2222,  # SSH, the usual alternative
        2525,  # SMTP submission, the usual alternative
        2628,  # DICT: banner
        3306,  # MySQL, MariaDB: handshake packet
        3690,  # Subversion: greeting
        4190,  # ManageSieve: capabilities
        5038,  # Asterisk manager: banner
        *range(5900, 5911),  # VNC displays :0 to :10: RFB version
        6600,  # MPD: greeting
        8021,  # FreeSWITCH event socket: asks for the password
    }
)


def speaks_first(port: int) -> bool:
    """Whether the server of this well-known TCP port speaks before its client does."""
    return port in _SERVER_FIRST
