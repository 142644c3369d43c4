"""The commands and their options. Each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zignet.cli.contacts_commands import contact_names, contacts_app
from zignet.cli.errors import ExitCode, Fault, guarded
from zignet.cli.files import VARIABLE, find, load, state_dir
from zignet.cli.output import make_console, print_json

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["app", "run"]

_MOST_PEERS = 100  # of one table

_EPILOG = """[bold]Examples[/]

[cyan]zignet init[/]  — make this node's key, and a configuration to begin with

[cyan]sudo zignet -c zignet.yaml up[/]  — send this machine's traffic through ZigNet until Ctrl-C

[cyan]zignet route explain https://www.video.example/[/]  — which rule, which exit, and why

[cyan]zignet flows --watch[/]  — what is open now, live

[cyan]sudo zignet doctor[/]  — what this machine lacks, and what to do about it

[bold]Configuration[/]  is the file after -c, else $ZIGNET_CONFIG, else the first that exists of
./zignet.yaml, ~/.zignet/zignet.yaml and /etc/zignet/zignet.yaml.

[bold]Exit codes[/]  0 done, 1 failed, 2 wrong usage, 3 configuration error, 4 not running,
5 privileges missing, 6 already running, 7 denied by policy."""

app = typer.Typer(
    name="zignet",
    help="A userspace NAT loopback proxy engine: every flow leaves by the exit that your rules choose.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
route_app = typer.Typer(help="Ask which way a flow would leave.", no_args_is_help=True)
key_app = typer.Typer(
    help="Take this node's identity to another device, or bring one in.", no_args_is_help=True
)
dns_app = typer.Typer(
    help="Names: the node's name server, and how this host's names come to it.", no_args_is_help=True
)
policy_app = typer.Typer(help="Ask who may come in, and why.", no_args_is_help=True)
_RUN, _LOOK, _CHECK, _IDENTITY = "Run", "Look", "Check", "Identity"  # the groups of the help page
app.add_typer(route_app, name="route", rich_help_panel=_LOOK)
app.add_typer(dns_app, name="dns", rich_help_panel=_LOOK)
app.add_typer(policy_app, name="policy", rich_help_panel=_LOOK)
app.add_typer(key_app, name="key", rich_help_panel=_IDENTITY)
app.add_typer(contacts_app, name="contacts", rich_help_panel=_IDENTITY)


@dataclass(slots=True)
class Options:
    """What was said before the command."""

    config: Path | None = None
    verbosity: int = 0

    @property
    def path(self) -> Path | None:
        """The configuration file in use, or None for the defaults."""
        return find(self.config)


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="Its first line is the passphrase; for scripts."),
]


def run(args: list[str] | None = None) -> int:
    """The whole command; returns its exit code."""
    options = Options()
    try:
        return guarded(lambda: app(args=args, prog_name="zignet", obj=options), lambda: options.verbosity > 0)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.OK


def _print_version(wanted: bool) -> None:
    if wanted:
        import zignet

        print(f"zignet {zignet.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", help=f"The configuration file (or ${VARIABLE})."),
    ] = None,
    verbose: Annotated[
        int,
        typer.Option("-v", "--verbose", count=True, help="Say more; -vv for everything.", show_default=False),
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    options: Options = context.obj
    options.config = config
    options.verbosity = -1 if quiet else verbose


def _while_typing(context: typer.Context) -> Config | None:
    """For completion: the configuration in use, or None where it can't be read."""
    given = context.find_root().params.get("config")
    try:
        return load(find(Path(given) if given else None))
    except Exception:  # there is nobody to tell while a line is being typed
        return None


def _exit_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the exits of the configuration in use."""
    config = _while_typing(context)
    peers = (peer.name for peer in config.peers) if config is not None else ()
    names = ("direct", "block", *config.exits, *peers) if config is not None else ()
    return [name for name in names if name.startswith(incomplete)]


@app.command(
    rich_help_panel=_RUN,
    epilog="SIGINT and SIGTERM stop it and leave the system as it was; SIGHUP reads the file again.",
)
def up(context: typer.Context) -> None:
    """Run the node in the foreground: make the TUN, lead the traffic through it, until stopped."""
    from zignet.cli.up import up as become_node

    options: Options = context.obj
    become_node(options.path, options.verbosity)


@app.command(rich_help_panel=_LOOK)
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show the running node: interface, exits, flows, totals."""
    from zignet.cli.status import show
    from zignet.control import Client

    with Client(_state_dir(context)) as client:
        answer = client.status()
    if as_json:
        print_json(answer)
    else:
        show(make_console(), answer)


@app.command(
    rich_help_panel=_LOOK,
    epilog="[cyan]zignet flows --exit tokyo --watch[/]  — live, one exit only\n\n"
    "[cyan]zignet flows --json | jq '.flows[] | select(.down > 1e6)'[/]",
)
def flows(
    context: typer.Context,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    ended: Annotated[bool, typer.Option("--ended", "--all", "-a", help="Recently ended ones too.")] = False,
    exit_name: Annotated[
        str | None,
        typer.Option("--exit", metavar="NAME", help="Only this exit's.", autocompletion=_exit_names),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.1, metavar="SECONDS", help="With --watch.")] = 1.0,
) -> None:
    """List the open flows: where to, how that is known, by which rule and exit, bytes and age."""
    from zignet.cli import flows as view

    read = partial(view.fetch, _state_dir(context), ended, exit_name)
    if watch:
        with suppress(KeyboardInterrupt):  # the way to end it
            view.watch(make_console(), read, as_json, every)
        return
    found = read()
    if as_json:
        print_json({"flows": found})
    else:
        console = make_console()
        console.print(view.table(found, console.width))


def _peer_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the peers of the configuration in use, and the contacts."""
    config = _while_typing(context)
    peers = config.peers if config is not None else ()
    names = [peer.name for peer in peers if peer.name.startswith(incomplete)]
    return names + [name for name in contact_names(context, incomplete) if name not in names]


@app.command(
    rich_help_panel=_LOOK,
    epilog="[cyan]zignet peers --json | jq '.peers[] | select(.state == \"connected\") | .name'[/]",
)
def peers(
    context: typer.Context,
    as_json: Json = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Every one, those that came by themselves before too.")
    ] = False,
) -> None:
    """List the peers: name, key, local address, path, last handshake, bytes, round trip, loss."""
    from zignet.cli.peers import table
    from zignet.control import Client

    with Client(_state_dir(context)) as client:
        found = list(client.peers(every))
    if as_json:
        print_json({"peers": found})
    else:
        console = make_console()
        console.print(table(found, console.width, None if every else _MOST_PEERS))


@app.command(
    rich_help_panel=_LOOK,
    epilog="It goes through the session, not through the TUN: it tests keys and path, and no firewall on the way "
    "can tell it from other traffic. Returns 1 if nothing was answered.",
)
def ping(
    context: typer.Context,
    peer: Annotated[
        str,
        typer.Argument(metavar="PEER", help="A name, a key or a local address.", autocompletion=_peer_names),
    ],
    count: Annotated[int, typer.Option("-c", "-n", "--count", min=0, help="How many; 0: until Ctrl-C.")] = 4,
    interval: Annotated[float, typer.Option("-i", "--interval", min=0.01, metavar="SECONDS")] = 1.0,
    as_json: Json = False,
) -> None:
    """Ping a peer, sealed, and say by which path the answer came."""
    from zignet.cli import peers as view
    from zignet.control import Client

    with Client(_state_dir(context)) as client:
        pings, results = view.ping(
            lambda: client.ping(peer),
            count,
            interval,
            (lambda _: None) if as_json else partial(print, flush=True),
        )
    if as_json:
        print_json({"pings": results})
    else:
        print(pings.summary())
    if not pings.times_s:
        raise typer.Exit(ExitCode.FAILURE)


@app.command(
    name="wire-dump",
    rich_help_panel=_LOOK,
    epilog="[cyan]sudo tcpdump -w seen.pcap udp port 51830[/]  — then: zignet wire-dump seen.pcap\n\n"
    "[cyan]sudo tcpdump -U -w - udp port 51830 | zignet wire-dump -[/]  — as it happens\n\n"
    "[cyan]zignet wire-dump seen.pcap --keys session.keys --json | jq .frame[/]  — what was inside, one object a line",
)
def wire_dump(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", help="A pcap or pcapng file; - for standard input.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help="Session keys, as the node writes them to `key_log:`."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Everything of this UDP port, and nothing else."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode the ZigNet datagrams in a capture; with the session keys, what they seal, too."""
    from zignet.cli.wire_dump import dump

    if code := dump(capture, keys, port, as_json):
        raise typer.Exit(code)


def _destinations(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: names of the ZigNet zone, and those that rules of the configuration in use are about."""
    config = _while_typing(context)
    if config is None:
        return []
    from zignet.cli.destination import names_in

    scheme, slashes, begun = incomplete.rpartition("://")
    names = (*_known_names(context, ""), *names_in(config.routes))
    return [f"{scheme}{slashes}{name}" for name in names if name.startswith(begun)]


@route_app.command(
    epilog="[cyan]zignet route explain https://www.video.example/[/]  — the way, and whether it works\n\n"
    "[cyan]zignet route explain mail.example:25 --no-probe[/]  — only what would be\n\n"
    "[cyan]zignet route explain udp://'\\[2001:db8::1]:443'[/]  — UDP is never probed\n\n"
    "[cyan]zignet route explain www.video.example --json | jq '.probe.steps[] | [.step, .took_s]'[/]\n\n"
    "The probe looks the name up at the node's server, connects, shakes hands for https and asks for the first byte "
    "with HEAD, all as any program would; it follows no redirect and trusts no certificate. It returns 1 if a step "
    "failed, and says where and what to do. Where no node is running, the configuration alone is asked."
)
def explain(
    context: typer.Context,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="URL|HOST[:PORT]",
            help="The port is 443 if none is given; udp:// for UDP.",
            autocompletion=_destinations,
        ),
    ],
    as_json: Json = False,
    udp: Annotated[bool, typer.Option("--udp", help="As UDP, e.g. QUIC, instead of TCP.")] = False,
    probe: Annotated[
        bool, typer.Option(help="Try it, step by step, and take the time; only if a node runs.")
    ] = True,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, max=600, metavar="SECONDS", help="Of each step of the probe."),
    ] = 10.0,
    resolve: Annotated[
        bool, typer.Option(help="Look the name up; without, nothing is probed by name.")
    ] = True,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="ADDRESS", help="As if it came from this address; nothing is probed."
        ),
    ] = None,
) -> None:
    """Show the way of a request step by step, from the DNS answer to the exit, and try it out."""
    from zignet.cli import route, way
    from zignet.cli.destination import parse

    options: Options = context.obj
    wish = route.Wish(source, resolve, probe, timeout)
    found = route.answer(parse(destination, udp), options.path, wish)
    if as_json:
        print_json(way.as_json(found))
    else:
        way.show(make_console(), found)
    if found.failed_at is not None:
        raise typer.Exit(ExitCode.FAILURE)


@dns_app.command(name="status")
def dns_status(context: typer.Context, as_json: Json = False) -> None:
    """Show where the node answers names, how this host's queries get there, and what was changed for it."""
    from zignet.cli import dns

    found = dns.status(_state_dir(context))
    if as_json:
        print_json(found)
    else:
        dns.show(make_console(), found)


@policy_app.command(
    name="check",
    epilog="[cyan]zignet policy check FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z[/]\n\n"
    "[cyan]zignet policy check laptop --proto tcp --port 22[/]  — may it reach this service?\n\n"
    "The sources that the configuration names are asked from here, as this user; no node needs to run. It returns 0 if "
    "the key may, 7 if it is denied, 1 if it is denied because a source could not answer.",
)
def policy_check(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="A key, or the name of a peer or contact.", autocompletion=_peer_names
        ),
    ],
    proto: Annotated[
        str | None, typer.Option("--proto", metavar="tcp|udp|icmp", help="May it reach this, too?")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Of tcp, unless --proto says udp.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show whether a key may come in: each rule in its order, what it says, and which one decides."""
    from zignet.cli import policy as view

    if proto not in (None, "tcp", "udp", "icmp"):
        raise Fault(f"--proto is tcp, udp or icmp, not {proto}", ExitCode.USAGE)
    options: Options = context.obj
    found, notes = view.answer(options.path, key, proto, port)
    running = view.asked_of_node(_state_dir(context), found["key"])
    if as_json:
        print_json({**found, "notes": notes, "running": running})
    else:
        view.show(make_console(), found, notes)
        if running is not None:
            print(view.of_node(running))
    if code := view.code(found):
        raise typer.Exit(code)


def _known_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: names in the ZigNet zone that the configuration in use knows."""
    names = ("admin", *_peer_names(context, ""))
    return [name for name in (f"{name}.zignet" for name in names) if name.startswith(incomplete)]


def _record_types(incomplete: str) -> list[str]:
    """Completion: the usual ones."""
    kinds = ("A", "AAAA", "PTR", "HTTPS", "CNAME", "TXT", "MX", "SRV", "SOA", "NS")
    return [kind for kind in kinds if kind.startswith(incomplete.upper())]


@dns_app.command(
    name="query",
    epilog="[cyan]zignet dns query www.video.example[/]  — A and AAAA, and why\n\n"
    "[cyan]zignet dns query 198.19.0.7[/]  — whose fake address this is\n\n"
    "[cyan]zignet dns query peer_us.zignet AAAA --json[/]\n\n"
    "It returns 1 where there is no such name, or the server failed.",
)
def dns_query(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name or an address.", autocompletion=_known_names)
    ],
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[TYPE]", help="A, HTTPS, TXT, …", autocompletion=_record_types, show_default=False
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", "-s", metavar="ADDRESS[:PORT]", help="Ask this one; no node needs to run."),
    ] = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="Over TCP.")] = False,
    as_json: Json = False,
) -> None:
    """Ask the running node's name server itself, and say where the answer comes from."""
    from zignet.cli import dns_query as view

    queries = view.parse(name, kind)
    answers = view.ask_node(Path() if server else _state_dir(context), queries, server, tcp)
    if as_json:
        print_json(view.as_json(answers))
    else:
        print("\n".join(view.lines(answers)))
    if any(answer.rcode != "NOERROR" for answer in answers):
        raise typer.Exit(ExitCode.FAILURE)


@dns_app.command(name="flush")
def dns_flush(context: typer.Context) -> None:
    """Have the node forget the answers of other name servers; fake addresses stay, since programs hold them."""
    from zignet.control import Client

    with Client(_state_dir(context)) as client:
        count = client.dns_flush()
    print(f"{count} answer{'' if count == 1 else 's'} forgotten.")


@dns_app.command(
    name="restore",
    epilog="A node does this itself when it stops, and the next start does it after a crash. What somebody else has "
    "changed meanwhile is left and named; then it returns 1.",
)
def dns_restore(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Even while the node runs.")] = False,
    as_json: Json = False,
) -> None:
    """Put the system's name resolution back as it was before a node that is gone. Needs no node."""
    from zignet.cli import dns

    restored = dns.put_back(_state_dir(context), force)
    if as_json:
        print_json({"done": restored.done, "left": restored.left})
    else:
        print("\n".join(dns.restored_lines(restored)))
    if restored.left:
        raise typer.Exit(ExitCode.FAILURE)


@app.command(
    rich_help_panel=_CHECK,
    epilog="It returns 1 if a check failed. Some checks need root to look at all.",
)
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check everything that the engine needs of this machine, and say what to do."""
    from zignet.cli import doctor as view
    from zignet.system import doctor as examination

    options: Options = context.obj
    checks = examination.run(load(options.path))
    if as_json:
        print_json({"ok": view.is_well(checks), "checks": view.as_json(checks)})
    else:
        view.show(make_console(), checks)
    if not view.is_well(checks):
        raise typer.Exit(ExitCode.FAILURE)


@app.command(rich_help_panel=_CHECK)
def check(context: typer.Context, as_json: Json = False) -> None:
    """Read the configuration, and say whether it is right; touch nothing else."""
    from zignet.cli.check import examine, examine_all, summary

    options: Options = context.obj
    if not as_json:
        print(summary(examine(options.path)))
        return
    verdict = examine_all(options.path)
    print_json(verdict)
    if not verdict["ok"]:
        raise typer.Exit(ExitCode.CONFIGURATION)


@app.command(
    rich_help_panel=_IDENTITY,
    epilog="The configuration goes where -c or $ZIGNET_CONFIG says, else to ./zignet.yaml. Of the two, only what is "
    "missing is made; nothing is ever overwritten.",
)
def init(
    context: typer.Context,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="DIR", help="Where the key goes, instead of ~/.zignet."),
    ] = None,
) -> None:
    """Make this node's key, and a configuration to begin with."""
    from zignet.cli.init import report, start

    options: Options = context.obj
    print(report(start(options.config, state_dir)))


@app.command(rich_help_panel=_IDENTITY, epilog="Names are the same in upper case, as in the QR code.")
def whoami(
    context: typer.Context,
    as_json: Json = False,
    qr: Annotated[
        bool | None,
        typer.Option("--qr/--no-qr", help="The name as a QR code, too. On a terminal unless forbidden."),
    ] = None,
) -> None:
    """Show who this node is: its name, the same key in other notations, its IPv6 address."""
    from zignet.cli import whoami as view

    options: Options = context.obj
    who = view.identity(options.path)
    if as_json:
        print_json(who)
        return
    print(view.lines(who))
    on_terminal = sys.stdout.isatty()
    if on_terminal if qr is None else qr:
        from zignet.cli.qr import draw

        print(f"\n{draw(who['name'].upper(), on_terminal)}")


@key_app.command(
    name="export",
    epilog="[cyan]zignet key export laptop.key[/]  — then, on the other device: zignet key import laptop.key\n\n"
    "It is an OpenSSH private key: ssh-keygen reads it, too. Where one key runs on two devices at once, the one "
    "that came last has the peers.",
)
def export_key(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="A new file; - for standard output.", show_default=False)
    ] = Path("-"),
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write this node's identity, encrypted with a passphrase."""
    from zignet.cli import key

    options: Options = context.obj
    if told := key.export_key(options.path, file, key.passphrase_from(passphrase_file)):
        print(told)


@key_app.command(
    name="import",
    epilog="[cyan]zignet key import laptop.key[/]  — what `zignet key export` wrote\n\n"
    "[cyan]zignet key import ~/.config/solana/id.json[/]  — a Solana wallet: its address is this node's base58 form",
)
def import_key(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="OpenSSH, Solana or ZigNet key file; - for standard input.")
    ],
    passphrase_file: PassphraseFile = None,
    force: Annotated[bool, typer.Option("--force", help="Move an identity that is there aside.")] = False,
) -> None:
    """Make the key in a file this node's identity."""
    from zignet.cli import key

    options: Options = context.obj
    print(key.import_key(options.path, file, key.passphrase_from(passphrase_file), force))


@app.command(rich_help_panel=_RUN)
def reload(context: typer.Context) -> None:
    """Have the running node read its configuration again; open flows stay as they are."""
    from zignet.control import Client, Declined

    with Client(_state_dir(context)) as client:
        try:
            client.reload()
        except Declined as error:
            raise Fault(f"the older configuration stays in force: {error}", ExitCode.CONFIGURATION) from error
    print("The configuration was read again.")


@app.command(
    rich_help_panel=_RUN,
    epilog="[cyan]zignet serve 3000[/]  — contacts open http://NAME.zignet/, with the name that they have for you\n\n"
    "[cyan]zignet serve 127.0.0.1:8000 --port 8000 --name music --to alice --to tag:friend[/]",
)
def serve(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="PORT|HOST:PORT", help="Where the program listens, usually on 127.0.0.1.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", min=1, max=65535, help="The port of the ZigNet address; 80 if none is given."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="What the service is called.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="WHO", help="contacts, all, a name, a key, or tag:TAG; may be given again."
        ),
    ] = None,
) -> None:
    """Publish a program of this machine to contacts, until Ctrl-C."""
    from zignet.cli import serve as view

    view.serve(_state_dir(context), view.service_of(target, port, name, to or ()))


@app.command(rich_help_panel=_CHECK)
def version(as_json: Json = False) -> None:
    """Show the version, and which modules of the packet path are compiled."""
    from zignet.cli import version as view

    known = view.facts()
    if as_json:
        print_json(known)
    else:
        view.show(make_console(), known)


@app.command(
    rich_help_panel=_CHECK,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[OPTIONS]; see: zignet bench --help",
)
def bench(context: typer.Context) -> None:
    """Measure this machine: throughput, connections, UDP, latency, memory; tables and plots."""
    try:
        from zignet.bench.command import bench as command
    except ImportError as error:
        raise Fault(f"the benchmark can't be loaded: {error}. Install ZigNet again, whole.") from error
    measuring = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    measuring.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    measuring(args=context.args, prog_name="zignet bench")


def _state_dir(context: typer.Context) -> Path:
    options: Options = context.obj
    return state_dir(options.path)
