"""A JSON-RPC server on a ledger, which can also misbehave."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey

from tests.zignet.policy.solana.ledger import Ledger

__all__ = ["Server"]

Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers
Fault = Callable[
    [dict[str, Any], bytes], Answer | None
]  # request, true answer -> what is sent; None: silence


class Server:
    """Answers what the policy asks: `with Server(ledger) as server: server.url`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.asked: Counter[str] = Counter()
        self.fault: Fault | None = None
        self.free = threading.Event()  # whoever is met with silence waits for it
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = outer.answer(json.loads(body))
                if answer is None:
                    outer.free.wait(60)
                    self.close_connection = True
                    return
                status, content, headers = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/?api-key=SECRET"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: dict[str, Any]) -> Answer | None:
        """To one request."""
        self.asked[request["method"]] += 1
        true = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": request["id"],
                "result": {
                    "context": {"slot": 1},
                    "value": self._value(request["method"], request["params"]),
                },
            }
        ).encode()
        if self.fault is not None:
            return self.fault(request, true)
        return 200, true, {"Content-Type": "application/json"}

    def _value(self, method: str, params: list[Any]) -> Any:
        vm = self.ledger.vm
        if method == "getMultipleAccounts":
            return [shown(vm.get_account(Pubkey.from_string(text))) for text in params[0]]
        assert method == "getTokenAccountsByOwner", method
        only = {name: Pubkey.from_string(text) for name, text in params[1].items()}
        found = self.ledger.tokens(Pubkey.from_string(params[0]), only.get("mint"), only.get("programId"))
        return [{"pubkey": str(address), "account": shown(account)} for address, account in found]


def shown(account: Account | None) -> dict[str, Any] | None:
    """An account as JSON-RPC shows it, as base64."""
    if account is None or account.lamports == 0:
        return None
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "executable": account.executable,
        "rentEpoch": account.rent_epoch,
        "space": len(account.data),
        "data": [base64.b64encode(bytes(account.data)).decode(), "base64"],
    }
