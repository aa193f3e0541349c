"""Completion: what the tab key offers, and the scripts by which bash, zsh and fish ask for it.

A script runs volback with `__complete` and the words after `volback`; the last one is being typed, and may be empty.
Each line of the answer is a word, and its help after a tab.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volback.cli.call import GLOBAL_OPTIONS, Call, Outcome, call_of, command_at, global_options_first
from volback.errors import UsageError

if TYPE_CHECKING:
    from volback.cli.documents.machine import CompletionScript

WORD = "__complete"

_EPILOG = """\b
Examples:
  source <(volback completion bash)              in ~/.bashrc
  volback completion zsh > ~/.zfunc/_volback     a directory of fpath
  volback completion fish > ~/.config/fish/completions/volback.fish
"""

_BASH = r"""# bash completion of volback: source it, for example in ~/.bashrc
_volback_completion() {
    local line=${COMP_LINE:0:COMP_POINT} word prefix reply
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    prefix=${word%"${word##*[@:=]}"}  # bash takes these for ends of words
    COMPREPLY=()
    while IFS=$'\t' read -r reply _; do
        [[ -n $reply ]] && COMPREPLY+=("${reply#"$prefix"}")
    done < <("$1" __complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o default -F _volback_completion volback
"""
_ZSH = r"""#compdef volback
# zsh completion of volback: a file _volback in a directory of fpath, or sourced after compinit
_volback() {
    local line value
    local -a found
    for line in ${(f)"$(volback __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        value=${line%%$'\t'*}
        if [[ $line == *$'\t'* ]]; then
            found+=("${value//:/\\:}:${line#*$'\t'}")
        else
            found+=("${value//:/\\:}")
        fi
    done
    if (( ${#found} )); then _describe -V volback found; else _files; fi
}
if [[ $funcstack[1] == _volback ]]; then _volback "$@"; else compdef _volback volback; fi
"""
_FISH = r"""# fish completion of volback: a file volback.fish in ~/.config/fish/completions
function __volback_complete
    set -l words (commandline -opc)
    set -l found (volback __complete $words[2..-1] (commandline -ct | string collect --allow-empty) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command volback --no-files --keep-order --arguments '(__volback_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_Shell = Annotated[
    str | None,
    typer.Argument(metavar="SHELL", help="bash, zsh or fish. [default: the shell that calls]", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(completion)


def completion(context: typer.Context, shell: _Shell = None) -> Outcome:
    """Print what lets the tab key of a shell complete.

    Commands, options, volumes, backups with their ids, projects, tags, jobs and repositories are offered.
    """
    name = shell or calling_shell()
    if name not in SCRIPTS:
        raise UsageError(f"there is no completion for {name!r}", "name the shell: volback completion bash, zsh or fish")
    call_of(context).command = "completion"
    result: CompletionScript = {"shell": name, "script": SCRIPTS[name]}
    return Outcome(result, SCRIPTS[name].rstrip("\n").split("\n"))


def calling_shell() -> str:
    """The shell that runs this process, else the user's own one; its name only."""
    try:
        parent = Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip().lstrip("-")
    except OSError:
        parent = ""
    return parent if parent in SCRIPTS else Path(os.environ.get("SHELL", "bash")).name


def install(shell: str) -> Path:
    """Put the script where that shell finds it; return the place. Raises UsageError."""
    home = Path.home()
    places = {
        "bash": home / ".bash_completions" / "volback.sh",
        "zsh": home / ".zfunc" / "_volback",
        "fish": home / ".config" / "fish" / "completions" / "volback.fish",
    }
    if shell not in places:
        raise UsageError(f"there is no completion for {shell!r}", "volback completion bash, zsh or fish prints one")
    places[shell].parent.mkdir(parents=True, exist_ok=True)
    places[shell].write_text(SCRIPTS[shell], encoding="utf-8")
    if shell == "bash":
        _add_line(home / ".bashrc", f"source '{places[shell]}'")
    if shell == "zsh":
        _add_line(home / ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit")
    return places[shell]


def _add_line(path: Path, line: str) -> None:
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    if line not in known.splitlines():
        path.write_text(known.rstrip("\n") + ("\n" if known else "") + line + "\n", encoding="utf-8")


def answer(words: list[str]) -> list[str]:
    """The lines for a shell, for the words after `volback`; the last one is being typed."""
    *before, current = words or [""]
    found = dict(_candidates(before, current))
    return [f"{word}\t{said}" if said else word for word, said in found.items()]


def _candidates(before: list[str], current: str) -> Iterator[tuple[str, str]]:
    from volback.cli.app import commands, parser
    from volback.cli.guesses import ALIASES, within

    left = global_options_first(before)
    at = command_at(left)
    name = ALIASES.get(left[at], left[at]) if at is not None else ""
    root = parser(name if name in commands() else "")
    command, rest = root, left if at is None else within(name, left[at + 1 :])
    if at is not None:
        command = root.commands.get(name)
        if command is not None and rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
    if command is None:
        return
    _note_globals(left if at is None else left[:at])
    yield from _fitting(_Place(root, command, before, rest), current)


class _Place:
    """Where the next word stands."""

    def __init__(self, root: Any, command: Any, before: list[str], rest: list[str]) -> None:
        self.command = command
        known = [*command.get_params(typer.Context(command))]
        if command is not root:
            known += [one for one in root.params if not set(one.opts).isdisjoint(GLOBAL_OPTIONS)]
        self.options = [one for one in known if one.param_type_name == "option" and not one.hidden]
        self.awaiting = self._option_of(before[-1]) if before else None
        self._rest = rest

    def _option_of(self, word: str) -> Any:
        """The option that takes the next word as its value; None where `word` is none, or takes no value."""
        return next((o for o in self.options if word in o.opts and not (o.is_flag or o.count)), None)

    def option(self, name: str) -> Any:
        """The option of that name; None where there is none."""
        return next((o for o in self.options if name in o.opts), None)

    def argument(self) -> Any:
        """The argument that the next word is; None where the command takes no more."""
        number, words = 0, iter(self._rest)
        for word in words:
            if word.startswith("-") and word != "-":
                if self._option_of(word) is not None:
                    next(words, None)
                continue
            number += 1
        arguments = [p for p in self.command.params if p.param_type_name == "argument"]
        if number < len(arguments):
            return arguments[number]
        return arguments[-1] if arguments and arguments[-1].nargs == -1 else None


def _fitting(place: _Place, current: str) -> Iterator[tuple[str, str]]:
    name, equals, value = current.partition("=")
    if place.awaiting is not None:
        yield from _values(place, place.awaiting, current)
    elif equals and name.startswith("--") and (option := place.option(name)) is not None:
        yield from ((f"{name}={word}", said) for word, said in _values(place, option, value))
    elif current.startswith("-"):
        shown = ((option, word) for option in place.options for word in (*option.opts, *option.secondary_opts))
        yield from ((word, option.help or "") for option, word in shown if word.startswith(current))
    elif commands := getattr(place.command, "commands", None):
        yield from (
            (word, below.get_short_help_str(60)) for word, below in commands.items() if word.startswith(current)
        )
    elif (argument := place.argument()) is not None:
        yield from _values(place, argument, current)


def _values(place: _Place, parameter: Any, current: str) -> Iterator[tuple[str, str]]:
    context = typer.Context(place.command)
    for item in parameter.shell_complete(context, current):
        if item.type == "plain":
            yield item.value, item.help or ""


def _note_globals(words: list[str]) -> None:
    """Ask the repository and the engine that the command line names."""
    from volback.cli import complete

    given: dict[str, list[str]] = {}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name in ("--repo", "--host", "--context", "--config", "--identity"):
            given.setdefault(name, []).append(value if equals else next(left, ""))
    last = {name: values[-1] for name, values in given.items()}
    complete.TYPED = Call(
        quiet=True,
        repository=last.get("--repo"),
        engine=last.get("--host", last.get("--context")),
        config=given.get("--config", []),
        identities=given.get("--identity", []),
    )
