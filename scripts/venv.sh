#!/bin/sh
# Makes .venv hold exactly what requirements/$1.txt locks: no pip either. Called by the Makefile: sh scripts/venv.sh runtime|dev
#
# Costs nothing when it was done before: a stamp in .venv holds the checksum of the lock and of what else
# matters. (Make's own timestamps would install again after every git checkout.) Needs a CPython 3.11 to 3.13.
# PYTHON names the interpreter, VENV the folder.
set -eu

which=${1:?usage: sh scripts/venv.sh runtime or dev}
root=$(cd "$(dirname "$0")/.." && pwd -P)
venv=${VENV:-.venv}
lock=$root/requirements/$which.txt
cd "$root"
case $venv in
    /*) ;;
    *) venv=$root/$venv ;;
esac

say() { printf '%s\n' "$*"; }
refuse() {
    printf '%s\n' "$@" >&2
    exit 1
}

# "3.12" of a CPython that runs; a pyenv shim without a version behind it does not.
version_of() {
    "$1" -c 'import sys; sys.implementation.name == "cpython" and print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

is_supported() {
    case $1 in
        3.11 | 3.12 | 3.13) return 0 ;;
        *) return 1 ;;
    esac
}

# Sets `python` to the interpreter for a new .venv, or says what to type.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        found=$(version_of "$PYTHON") || found=
        is_supported "$found" && python=$PYTHON && return
        refuse "$PYTHON is ${found:+CPython }${found:-no CPython that runs}; this needs CPython 3.11, 3.12 or 3.13 (Ray has no build for others)." \
            "Type: make PYTHON=/path/to/python3.13 ${GOAL:-up}"
    fi
    seen=
    for candidate in python3.13 python3.12 python3.11 python3; do
        found=$(version_of "$candidate") || continue
        is_supported "$found" && python=$candidate && return
        seen="$seen $candidate is ${found:-no CPython};"
    done
    if command -v apt-get >/dev/null 2>&1; then
        get="apt-get install python3.13 python3.13-venv   (or 3.12, 3.11: what your release has)"
    elif command -v brew >/dev/null 2>&1; then
        get="brew install python@3.13"
    elif command -v dnf >/dev/null 2>&1; then
        get="dnf install python3.13"
    else
        get="uv python install 3.13   (or from python.org)"
    fi
    refuse "No CPython 3.11, 3.12 or 3.13 found (Ray has no build for others).${seen:+ Seen:}${seen%;}" \
        "Type: $get" "then: make PYTHON=/path/to/python3.13 ${GOAL:-up}"
}

make_venv() {
    choose_python
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        version=$(version_of "$python")
        as_root=
        [ "$(id -u)" = 0 ] || as_root="sudo "
        refuse "$python cannot make virtual environments: its venv or ensurepip module is missing." \
            "Type: ${as_root}apt-get install python$version-venv" "then: make ${GOAL:-up}"
    fi
    say "making $venv with $("$python" -c 'import platform, sys; print(sys.executable, platform.python_version())')"
    "$python" -m venv --clear "$venv"
}

# Shows that pip goes on, not what it says: one line for every 20 packages.
show_progress() {
    total=$1
    count=0
    while IFS= read -r line; do
        case $line in
            Collecting*)
                count=$((count + 1))
                if [ $((count % 20)) -eq 0 ] && [ "$count" -le "$total" ]; then say "  $count of about $total fetched"; fi
                ;;
            *"Building wheel for"*started) say "  building ${line#*Building wheel for }" | sed 's/ (.*//' ;;
            "Installing collected packages"*) say "  unpacking" ;;
        esac
    done
}

# pip comes with the interpreter, is of its age and in no lock: it installs, and goes again with what came along.
get_pip() {
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip >/dev/null 2>&1 || make_venv
}

drop_pip() {
    unlocked=
    # pip last: it removes itself.
    for name in setuptools wheel pip; do
        grep -q "^$name==" "$root"/requirements/*.txt || unlocked="$unlocked $name"
    done
    # shellcheck disable=SC2086 # several words
    [ -z "$unlocked" ] || "$venv/bin/python" -m pip uninstall --disable-pip-version-check --yes $unlocked >>"$log" 2>&1 ||
        refuse "pip could not remove$unlocked; all it said is in $log"
}

install_lock() {
    total=$(grep -c '^[A-Za-z0-9].*==' "$lock") || total=0
    say "installing $total locked packages of requirements/$which.txt (once; a minute or two)"
    log=$venv/install.log
    # sh has no pipefail: pip's exit code goes through a file.
    {
        code=0
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
            --require-hashes -r "$lock" 2>&1 || code=$?
        echo "$code" >"$venv/install.code"
    } | tee "$log" | show_progress "$total"
    if [ "$(cat "$venv/install.code")" != 0 ]; then
        grep -E 'ERROR|error:' "$log" >&2 || tail -n 20 "$log" >&2
        refuse "pip could not install requirements/$which.txt; all it said is in $log"
    fi
}

# The project itself: a .pth with this folder, and a wrapper. An editable install would need a build backend in
# the locks, and does the same.
install_project() {
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$root" >"$site/llm-incident-manager.pth"
    # -P: the working folder is not for imports, another project's models/ may lie there.
    printf '#!/bin/sh\nexec "%s/bin/python" -P -m services.cli "$@"\n' "$venv" >"$venv/bin/llm-im.new"
    chmod 755 "$venv/bin/llm-im.new"
    mv "$venv/bin/llm-im.new" "$venv/bin/llm-im"
    # Now, not in each of the dozen processes of a first start: a tenth of a second of each. Where Python may not write
    # (PYTHONDONTWRITEBYTECODE, a folder of somebody else's) it would be every start.
    "$venv/bin/python" -m compileall -q "$root/models" "$root/actors" "$root/services" || true
}

# Two makes at once wait for each other, where flock exists. The lock file is the lock file.
exec 9<"$lock"
if command -v flock >/dev/null 2>&1; then flock 9; fi

stamp=$venv/.installed-$which
# Packages of a folder that was moved point to the old one.
wanted="$(cksum <"$lock") and nothing else in $venv"
if [ -n "${PYTHON:-}" ] && [ -x "$venv/bin/python" ]; then
    asked=$(version_of "$PYTHON") || asked=
    [ "$asked" = "$(version_of "$venv/bin/python")" ] || rm -f "$venv"/.installed-* "$venv/bin/python"
fi
has=$(version_of "$venv/bin/python") || has=
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && is_supported "$has"; then
    exit 0
fi
if ! is_supported "$has"; then
    make_venv
elif [ -f "$stamp" ] && ! grep -qF " in $venv" "$stamp"; then
    say "$venv was moved here"
    make_venv
fi
get_pip
install_lock
drop_pip
install_project
printf '%s\n' "$wanted" >"$stamp"
