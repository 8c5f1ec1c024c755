"""`caffe completion`."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace

from caffe.cli import flags as known_flags
from caffe.cli.command import command, offered
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, did_you_mean

_BASH = r"""# Completion of the command caffe for bash, written by "caffe completion bash".
_caffe() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="" plain=0 dashes=- index word candidates=""
    local commands="@COMMANDS@"
    local with_value=" @WITH_VALUE@ "
    COMPREPLY=()
    [[ ${1##*/} == caffe ]] || command=${1##*/}
    [[ $current == = || ${COMP_WORDS[COMP_CWORD-1]} == = ]] && return  # the value of a flag: a file
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == -* ]]; then
            while [[ $word == -* ]]; do word=${word#-}; done
            if [[ ${COMP_WORDS[index+1]} == = ]]; then
                ((index += 2))
            elif [[ $with_value == *" $word "* ]]; then
                ((index += 1))
            fi
        elif [[ -z $command ]]; then
            command=$word
        else
            ((plain += 1))
        fi
    done
    ((index > COMP_CWORD)) && return  # the value of a flag: a file
    if [[ $current == -* ]]; then
        [[ $current == --* ]] && dashes=--
        case $command in
@FLAGS@
            *) candidates="@GENERAL@" ;;
        esac
        COMPREPLY=($(compgen -P "$dashes" -W "$candidates" -- "${current#"$dashes"}"))
        return
    fi
    case $command:$plain in
        :0 | help:0) candidates=$commands ;;
@CHOICES@
    esac
    [[ -z $candidates ]] || COMPREPLY=($(compgen -W "$candidates" -- "$current"))
}
complete -o default -F _caffe @NAMES@
"""

_ZSH = r"""#compdef @NAMES@
# Completion of the command caffe for zsh, written by "caffe completion zsh".
_caffe() {
    setopt localoptions extendedglob
    local command="" word plain=0
    local -i index
    local -a commands with_value found
    commands=(
@COMMANDS@
    )
    with_value=(@WITH_VALUE@)
    [[ ${words[1]:t} == caffe ]] || command=${words[1]:t}
    for ((index = 2; index < CURRENT; index++)); do
        word=${words[index]}
        if [[ $word == -* ]]; then
            (( ${with_value[(Ie)${word##-#}]} )) && (( index += 1 ))
        elif [[ -z $command ]]; then
            command=$word
        else
            (( plain += 1 ))
        fi
    done
    if (( index > CURRENT )); then  # the value of a flag
        _files
    elif [[ ${words[CURRENT]} == -*=* ]]; then
        compset -P '*='
        _files
    elif [[ ${words[CURRENT]} == -* ]]; then
        case $command in
@FLAGS@
        esac
        found+=(
@GENERAL@
        )
        [[ ${words[CURRENT]} == --* ]] && found=(-${^found})
        _describe -o flag found
    else
        case $command:$plain in
            :0|help:0) _describe command commands ;;
@CHOICES@
            *) _files ;;
        esac
    fi
}
if [[ ${funcstack[1]} == _caffe ]]; then
    _caffe "$@"
else
    compdef _caffe @NAMES@
fi
"""

_FISH = r"""# Completion of the command caffe for fish, written by "caffe completion fish".
function __caffe_words  # the command and its plain arguments, without flags and their values
    set -l with_value @WITH_VALUE@
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            contains -- (string trim -l -c - -- $word) $with_value; and set skip 1
        else
            echo $word
        end
    end
end
function __caffe_is  # whether the command is the first argument; with a number, that many plain arguments follow it
    set -l words (__caffe_words)
    test "$words[1]" = "$argv[1]"; or return 1
    test (count $argv) = 1; or test (count $words) = $argv[2]
end
"""


@command(task="tools", arguments="bash|zsh|fish")
def completion(flags: SimpleNamespace, display: Display) -> None:
    """Print a shell script that completes commands, flags and file names.

    For the current terminal, or in ~/.bashrc or ~/.zshrc (after compinit) for every terminal:

        source <(caffe completion bash)
        source <(caffe completion zsh)

    For fish, which reads scripts from its own folder:

        caffe completion fish > ~/.config/fish/completions/caffe.fish
    """
    (shell,) = flags.arguments
    scripts = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in scripts:
        raise CaffeError(f'unknown shell "{shell}"{did_you_mean(shell, scripts)} (known: {", ".join(scripts)})')
    print(scripts[shell](), end="")


def _bash() -> str:
    def written(group: tuple[Flag, ...] | list[Flag]) -> str:
        return " ".join(name for name, _ in _names(group))

    known = offered().values()
    choices = [f'        {entry.name}:0) candidates="{" ".join(entry.choices)}" ;;' for entry in known if entry.choices]
    lines = [
        f'            {entry.name}) candidates="{written(entry.reads)} {written(known_flags.GENERAL)}" ;;'
        for entry in known
    ]
    return _filled(
        _BASH,
        COMMANDS=" ".join([*(entry.name for entry in known), "help"]),
        FLAGS="\n".join(lines),
        GENERAL=written(known_flags.GENERAL),
        CHOICES="\n".join(choices),
    )


def _zsh() -> str:
    def item(name: str, text: str) -> str:
        return _quoted(f"{name}:" + text.replace("\\", "\\\\").replace(":", r"\:"))

    def written(group: tuple[Flag, ...] | list[Flag], space: str) -> str:
        return "\n".join(f"{space}{item(f'-{name}', text)}" for name, text in _names(group))

    known = offered().values()
    flags = [
        f"            {entry.name})\n                found=(\n{written(entry.reads, ' ' * 20)}\n                ) ;;"
        for entry in known
        if entry.reads
    ]
    choices = [
        f"            {entry.name}:0) found=({' '.join(entry.choices)}); _describe value found ;;"
        for entry in known
        if entry.choices
    ]
    return _filled(
        _ZSH,
        COMMANDS="\n".join(f"        {item(name, text)}" for name, text in _summaries()),
        FLAGS="\n".join(flags),
        GENERAL=written(known_flags.GENERAL, " " * 12),
        CHOICES="\n".join(choices),
    )


def _fish() -> str:
    def lines(group: tuple[Flag, ...] | list[Flag], condition: str) -> list[str]:
        with_value = set(_with_value())
        found = []
        for name, text in _names(group):
            kind = f"-s {name}" if len(name) == 1 else f"-o {name} -l {name}"
            found.append(f"{condition} {kind}{' -r' if name in with_value else ''} -d {_quoted(text)}")
        return found

    script = lines(known_flags.GENERAL, "complete -c caffe")
    for name, text in _summaries():
        for place in ("''", "help 1"):
            script.append(f'complete -c caffe -f -n "__caffe_is {place}" -a {name} -d {_quoted(text)}')
    for entry in offered().values():
        script += lines(entry.reads, f'complete -c caffe -n "__caffe_is {entry.name}"')
        if entry.choices:
            values = " ".join(entry.choices)
            script.append(f"complete -c caffe -f -n \"__caffe_is {entry.name} 1\" -a '{values}'")
    script += [f"complete -c {name} -w 'caffe {name}'" for name in _executables()]
    return _filled(_FISH) + "\n".join(script) + "\n"


def _filled(script: str, **parts: str) -> str:
    """Fill in the parts that all shells share and the shell's own parts, in place of `@NAME@`."""
    parts |= {"WITH_VALUE": " ".join(_with_value()), "NAMES": " ".join(["caffe", *_executables()])}
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _summaries() -> list[tuple[str, str]]:
    """Return each command with its summary."""
    known = [(entry.name, entry.summary) for entry in offered().values()]
    return [*known, ("help", "Show the help of a command")]


def _names(group: tuple[Flag, ...] | list[Flag]) -> list[tuple[str, str]]:
    """Return the spellings of these flags, without dashes, with the first sentence of each help text."""
    found = []
    for flag in group:
        negated = [f"no{flag.name}"] if flag.default is True else []
        found += [(name, flag.help.partition(". ")[0].rstrip(".")) for name in (flag.name, *flag.aliases, *negated)]
    return found


def _with_value() -> list[str]:
    """Return the flags that take a value, of all commands."""
    return sorted(name for name, flag in known_flags.known_flags().items() if not isinstance(flag.default, bool))


def _executables() -> list[str]:
    """Return the commands that are installed as executables of their own."""
    scripts = metadata.entry_points(group="console_scripts")
    return sorted({script.name for script in scripts if script.value == "caffe.cli:tool"})


def _quoted(text: str) -> str:
    """Quote the text with single quotes, for zsh and fish."""
    return "'" + text.replace("'", r"'\''") + "'"
