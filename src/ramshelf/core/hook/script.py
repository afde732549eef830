"""The script in libvirt's hook directory, small so that it works where ramshelf does not.

It runs ramshelf's hook for the calls that matter, and tells apart what was decided from what is
broken.
"""

import re
import shlex

from ramshelf.core.hook.bypass import LONGEST as LONGEST_BYPASS
from ramshelf.core.hook.call import (
    CONCERNED,
    MARKS,
    MIGRATE,
    PREPARE,
    PROBE,
    RELEASE,
    START,
    STARTED,
    UNCONCERNED,
)
from ramshelf.core.record import dataclass

HOOK_DIR = "/etc/libvirt/hooks"
"""The directory of hooks that is built into libvirt (LIBVIRT_HOOK_DIR).

Its scripts run in this order: qemu, then those of qemu.d by name.
"""

SCRIPT_DIR = f"{HOOK_DIR}/qemu.d"
SCRIPT = f"{SCRIPT_DIR}/ramshelf"

_MADE = re.compile(r"^# made-directories:(?P<paths>.*)$", re.MULTILINE)

_TEMPLATE = r"""#!/bin/sh
# ramshelf: reserves a guest's memory on the store before it starts, or refuses it.
# Made by 'ramshelf hook install', which also updates it; 'ramshelf hook remove' removes it.
# made-directories:{made}
case "$2 $3" in
{phases}) ;;
{prepare}) case $1 in {probe}*) ;; *) exit 0 ;; esac ;;
*) exit 0 ;;
esac
PATH=/usr/sbin:/usr/bin:/sbin:/bin
run=/run/ramshelf
log=$run/hook.log
note=$run/guests/$1.guest
wait=$run/guests/$1.wait

# The guest's name as JSON has it.
quoted() {{
  case $1 in
  *[\\\"[:cntrl:]]*) ;;
  *) printf %s "$1"; return ;;
  esac
  rest=$1
  while [ -n "$rest" ]; do
    letter=${{rest%"${{rest#?}}"}}
    rest=${{rest#?}}
    case $letter in
    [\\\"]) printf '\\%s' "$letter" ;;
    [[:cntrl:]]) printf '\\u%04x' "'$letter" ;;
    *) printf %s "$letter" ;;
    esac
  done
}}

# record EVENT FACTS: add a line to the log.
record() {{
  [ -d $run ] || mkdir -m 755 $run
  umask 027
  printf '{{"time": "%s", "event": "%s", "guest": "%s"%s}}\n' \
    "$(date +%Y-%m-%dT%H:%M:%S%z)" "$1" "$(quoted "$guest")" "$2" >>$log
}}

# The same for what did not go well: also in the system's log, and for libvirt's user. The hook itself sees to
# it that its log does not grow without end; here it may be the hook that is missing.
report() {{
  if [ -f $log ] && [ "$(wc -c <$log)" -gt {limit} ]; then mv -f $log $log.1; fi
  record "$1" "$2"
  logger -p daemon.err -t ramshelf -- "$3" 2>/dev/null
  printf 'ramshelf: %s\n' "$3" >&2
}}

# Whether guests pass whatever the hook says: until so many seconds after the boot, a day from now at most.
bypassed() {{
  [ -f $run/bypass ] && read -r end <$run/bypass && read -r now _ </proc/uptime || return 1
  case $end in 0* | *[!0-9]* | ????????????*) return 1 ;; esac
  left=$((end - ${{now%%.*}}))
  [ $left -gt 0 ] && [ $left -le {longest} ]
}}

# Whether the guest's memory may be in files or pinned: by what the hook said before it broke, else by the
# text that it has not read. What cannot be known counts as if it were.
concerned() {{
  case $said in
  {unconcerned} | "{unconcerned}
"*) return 1 ;;
  {concerned} | "{concerned}
"*) return 0 ;;
  esac
  xml=$(cat)
  case $xml in
  {marks}) return 0 ;;
  '<domain'*) return 1 ;;
  *) return 0 ;;
  esac
}}

guest=$1
case $2 in
release)
  case $1 in {probe}*) rm -f "/var/log/libvirt/qemu/$1.log" 2>/dev/null; exit 0 ;; esac
  if [ -e "$note" ] || [ -e "$wait" ]; then
    rm -f "$note" "$wait"
    record ended "" </dev/null >/dev/null 2>&1 &
  fi
  exit 0 ;;
started)
  if [ ! -e "$wait" ]; then # nothing is left to be refused, so nobody waits
    {{
      {command} -- "$@"
      status=$?
      case $status in
      0 | 10) ;;
      *)
        report broken ", \"operation\": \"started\", \"status\": $status, \"vetoed\": 0" \
          "the hook is broken (status $status): guest $1 runs, and what it opened is not verified" ;;
      esac
    }} </dev/null >/dev/null 2>&1 &
    exit 0
  fi ;;
esac

said=$({command} -- "$@")
status=$?
facts=", \"operation\": \"$2\", \"status\": $status"
case $status in
0)
  # After the first line: what the guest that comes will be.
  case $2-$said in migrate-*"
"*) printf %s "${{said#*"
"}}" ;; esac
  exit 0 ;;
10) ;; # refused; the reason is on stderr
*)
  # Killed in the middle, or broken: no Python, no ramshelf, an error of its own.
  broken="the hook is broken (status $status)"
  if [ "$2" = prepare ]; then
    echo "ramshelf: $broken [hook.broken]" >&2
    exit 1
  fi
  [ "$(id -u)" = 0 ] || exit 0 # a user's own libvirt calls the same hooks; it has no store
  if [ "$2" = started ] || ! concerned; then
    report broken "$facts, \"vetoed\": 0" "$broken: guest $1 passes unseen at $2"
    exit 0
  fi ;;
esac
if [ "$2" != prepare ] && bypassed; then
  report bypassed "$facts" "'ramshelf hook bypass' is in force: guest $1 passes at $2 (status $status)"
  exit 0
fi
if [ $status != 10 ]; then
  report broken "$facts, \"vetoed\": 1" \
    "$broken, and the memory of guest $1 is in files or pinned, or may be: it is refused [hook.broken]"
  echo "hint: 'ramshelf hook install' repairs it; 'ramshelf hook bypass --for 30min' lets guests pass" >&2
fi
exit 1
"""  # noqa: E501 - the script's own lines

_LOG_LIMIT = 1 << 20
"""The bytes after which the script sets the log aside, as system/hooklog.py does."""


@dataclass(frozen=True, kw_only=True)
class HookScript:
    """What the script depends on.

    ``python`` runs ``main`` (hook/__main__.py of the copied modules) with ``config_files``: files,
    and directories whose ``*.conf`` count. ``made`` are the directories that were made to put the
    script in, which ``remove`` takes away again.
    """

    python: str
    main: str
    config_files: tuple[str, ...]
    made: tuple[str, ...] = ()


def render(script: HookScript) -> str:
    """Return the script's text."""
    return _TEMPLATE.format(
        made="".join(f" {shlex.quote(path)}" for path in script.made),
        command=shlex.join((script.python, "-IS", script.main, *script.config_files)),
        phases=" | ".join(map(shlex.quote, (START, STARTED, MIGRATE, RELEASE))),
        prepare=shlex.quote(PREPARE),
        probe=PROBE,
        marks=" | ".join(f"*{shlex.quote(mark)}*" for mark in MARKS),
        concerned=CONCERNED,
        unconcerned=UNCONCERNED,
        limit=_LOG_LIMIT,
        longest=LONGEST_BYPASS,
    )


def made_directories(text: str) -> tuple[str, ...] | None:
    """Return the directories that an installed script says were made for it.

    The result is None where the script is not ramshelf's.
    """
    match = _MADE.search(text)
    return tuple(shlex.split(match["paths"])) if match else None
