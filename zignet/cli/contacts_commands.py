"""The commands of `zignet contacts`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import load, state_dir
from zignet.cli.output import make_console, print_json

__all__ = ["contact_names", "contacts_app"]

contacts_app = typer.Typer(help="People whom you know by their keys.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="May be given again.")]


def _folder(context: typer.Context) -> Path:
    from zignet.control.place import CONTROL_NAME

    return state_dir(context.obj.path) / CONTROL_NAME


def contact_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the contacts that there are."""
    from zignet.cli.contacts import book
    from zignet.cli.files import find
    from zignet.control.place import CONTROL_NAME

    given = context.find_root().params.get("config")
    try:
        folder = load(find(Path(given) if given else None)).state_dir / CONTROL_NAME
        if not folder.is_dir():
            return []
        with book(folder) as store:
            return [contact.name for contact in store if contact.name.startswith(incomplete)]
    except Exception:  # there is nobody to tell while a line is being typed
        return []


Name = Annotated[str, typer.Argument(metavar="NAME", help="A name or a key.", autocompletion=contact_names)]


@contacts_app.command(name="list", epilog="[cyan]zignet contacts list --json | jq -r '.contacts[].link'[/]")
def list_all(
    context: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", "-t", metavar="TAG", help="Only those.")] = None,
    as_json: Json = False,
) -> None:
    """Show all contacts, and who of them is online."""
    from zignet.cli import contacts as view

    with view.book(_folder(context)) as store:
        found = [contact for contact in store if tag is None or tag.lower() in contact.tags]
    peers = view.online(state_dir(context.obj.path))
    if as_json:
        print_json({"contacts": view.as_json(found, peers)})
    elif not found:
        print("No contacts. Add one with: zignet contacts add NAME KEY")
    else:
        make_console().print(view.table(found, peers, time.time()))


@contacts_app.command(
    epilog="[cyan]zignet contacts add alice KEY --tag friend[/]\n\n[cyan]zignet contacts add 'zignet:KEY?name=alice'[/]"
)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|LINK", help="What you call them, or a whole link.")],
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY|LINK]", help="Their key in any form, or their link.", show_default=False
        ),
    ] = None,
    note: Annotated[str, typer.Option("--note", "-n", metavar="TEXT")] = "",
    tag: Tags = None,
    as_json: Json = False,
) -> None:
    """Add somebody."""
    from zignet.cli import contacts as view

    contact = view.contact_of(name, key, note, tag or ())
    folder = _folder(context)
    config = view.config_of(context.obj.path)
    view.refuse_oneself(contact, config)
    with view.book(folder) as store:
        kept = store.add(contact)
    if as_json:
        print_json(kept.to_json())
    else:
        print(f"{kept.name} is a contact now, and {view.how_reached(kept, config)}.")


@contacts_app.command()
def rename(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")],
) -> None:
    """Call somebody by another name."""
    from zignet.cli import contacts as view

    with view.book(_folder(context)) as store:
        new = store.change(name, to=to)
    print(f"{name} is {to} now, and {view.how_reached(new, view.config_of(context.obj.path))}.")


@contacts_app.command(epilog="--tag and --untag may be given several times; --note '' takes the note away.")
def edit(
    context: typer.Context,
    name: Name,
    note: Annotated[
        str | None, typer.Option("--note", "-n", metavar="TEXT", help="Instead of the old.")
    ] = None,
    tag: Tags = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", metavar="TAG")] = None,
) -> None:
    """Change the note or the tags of somebody."""
    from zignet.cli import contacts as view

    if note is None and not tag and not untag:
        raise Fault("Say what to change: --note, --tag or --untag.", ExitCode.USAGE)
    with view.book(_folder(context)) as store:
        found = store.find(name)
        if found is None:
            raise Fault(f'There is no contact "{name}".')
        gone = {text.lower() for text in untag or ()}
        store.change(name, note=note, tags=(*(text for text in found.tags if text not in gone), *(tag or ())))
    print(f"{found.name} was changed.")


@contacts_app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Forget somebody."""
    from zignet.cli import contacts as view

    with view.book(_folder(context)) as store:
        old = store.remove(name)
    print(f"{old.name} is forgotten. To have them back: zignet contacts add '{view.link(old)}'")


@contacts_app.command(name="export", epilog="[cyan]zignet contacts export friends.json --tag friend[/]")
def export_all(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="A new file; - for standard output.", show_default=False)
    ] = Path("-"),
    tag: Annotated[str | None, typer.Option("--tag", "-t", metavar="TAG", help="Only those.")] = None,
) -> None:
    """Write the contacts as JSON."""
    from zignet.cli import contacts as view
    from zignet.contacts import dump

    with view.book(_folder(context)) as store:
        found = [contact for contact in store if tag is None or tag.lower() in contact.tags]
    text = dump(found) + "\n"
    if file == Path("-"):
        sys.stdout.write(text)
        return
    try:
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as target:
            target.write(text)
    except OSError as error:
        raise Fault(f"{file}: {error.strerror}") from None
    print(f"{len(found)} contacts are in {file}.")


@contacts_app.command(
    name="import",
    epilog="It takes what `export` wrote, and lines such as `alice KEY` or links. Who is there already is not "
    "changed. Returns 1 if something was not taken.",
)
def import_all(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="- for standard input.")],
    as_json: Json = False,
) -> None:
    """Add the contacts in a file."""
    from zignet.cli import contacts as view

    text = view.read(file)
    with view.book(_folder(context)) as store:
        done = view.import_all(store, text, view.own_key(view.config_of(context.obj.path)))
    if as_json:
        refused = [{"entry": who, "why": why} for who, why in done.refused or ()]
        print_json({"added": done.added, "known": done.known, "refused": refused})
    else:
        print("\n".join(done.lines()))
    if done.refused:
        raise typer.Exit(ExitCode.FAILURE)


@contacts_app.command(
    epilog="[cyan]zignet contacts link --name laptop[/]  — this node's own, for others to add"
)
def link(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A contact; nobody: this node.", autocompletion=contact_names),
    ] = None,
    called: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The name in the link of this node.")
    ] = "",
    qr: Annotated[
        bool | None, typer.Option("--qr/--no-qr", help="As a QR code, too. On a terminal unless forbidden.")
    ] = None,
) -> None:
    """Show the link of somebody, or of this node, to hand over."""
    from zignet.cli import contacts as view
    from zignet.contacts import Contact, ContactError, format_link

    if name is None:
        from zignet.identity import read_key

        own = read_key(load(context.obj.path).identity_file).public
        try:
            text = format_link(own, Contact(called, own).name if called else "")
        except ContactError as error:
            raise Fault(str(error), ExitCode.USAGE) from None
    else:
        with view.book(_folder(context)) as store:
            found = store.find(name)
        if found is None:
            raise Fault(f'There is no contact "{name}".')
        text = view.link(found)
    print(text)
    on_terminal = sys.stdout.isatty()
    if on_terminal if qr is None else qr:
        from zignet.cli.qr import draw

        print(f"\n{draw(text, on_terminal)}")
