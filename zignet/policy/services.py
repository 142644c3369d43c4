"""What one who may come in may reach here: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zignet.config.services import ServiceConfig

__all__ = ["may_reach"]

IsMember = Callable[[str], bool]  # a peer's name, a key, or file:PATH; whether this key is that, or in it


def may_reach(
    services: Sequence[ServiceConfig] | None, proto: str, port: int | None, is_member: IsMember
) -> tuple[bool, str]:
    """Whether `proto` (tcp, udp, icmp) to `port` is for this key, and which entry of `inbound.services` says so.

    Each entry adds to what may be reached; whom one does not name, another may.
    """
    if services is None:
        return True, "inbound has no services, so there is no limit to what may be reached"
    where = proto if port is None else f"{proto} port {port}"
    fitting = [at for at, service in enumerate(services) if _fits(service, proto, port)]
    for at in fitting:
        allow = services[at].allow
        if allow is None:
            return True, f"inbound.services[{at}] is for all who may come in"
        for text in allow:
            if is_member(text):
                return True, f"inbound.services[{at}] allows {text}"
    if fitting:
        those = " and ".join(f"inbound.services[{at}]" for at in fitting)
        return False, f"{where} is not for this key ({those})"
    return False, f"{where} is not among inbound.services"


def _fits(service: ServiceConfig, proto: str, port: int | None) -> bool:
    if service.proto != proto:
        return False
    if port is None:
        return not service.ports
    return not service.ports or any(low <= port <= high for low, high in service.ports)
