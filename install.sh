#!/bin/sh
# Builds mcpx from this directory and installs the program, its manual pages and its completions.
#
#   ./install.sh [--prefix DIR] [--debug]
#   ./install.sh --uninstall [--prefix DIR]
#
# The prefix is /usr/local if you may write there, else ~/.local. Needs cargo and a C compiler.
set -eu

die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$0"
}

prefix=
profile=release
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix)
            [ $# -ge 2 ] || die '--prefix needs a directory'
            prefix=$2
            shift
            ;;
        --prefix=*) prefix=${1#--prefix=} ;;
        --debug) profile=dev ;;
        --uninstall) action=uninstall ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown option $1 (try --help)" ;;
    esac
    shift
done

if [ -z "$prefix" ]; then
    if [ -w /usr/local/bin ]; then
        prefix=/usr/local
    else
        [ -n "${HOME:-}" ] || die 'HOME is not set; use --prefix DIR'
        prefix=$HOME/.local
    fi
fi
case $prefix in
    /*) ;;
    *) prefix=$(pwd)/$prefix ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
bin=$prefix/bin
man=$prefix/share/man/man1
bash=$prefix/share/bash-completion/completions
zsh=$prefix/share/zsh/site-functions
fish=$prefix/share/fish/vendor_completions.d

# Puts a file in place whole: a running mcpx keeps the one it was started from.
put() {
    mode=$1 source=$2 target=$3
    mkdir -p "$(dirname "$target")"
    cp "$source" "$target.new.$$"
    chmod "$mode" "$target.new.$$"
    mv -f "$target.new.$$" "$target"
}

# Exactly what an install of any version puts there, and nothing else.
remove() {
    rm -f "$bin/mcpx" "$man/mcpx.1" "$man"/mcpx-*.1 "$bash/mcpx" "$zsh/_mcpx" "$fish/mcpx.fish"
}

if [ "$action" = uninstall ]; then
    remove
    printf 'removed mcpx from %s; logins stay until `mcpx logout`\n' "$prefix"
    exit 0
fi

command -v cargo >/dev/null 2>&1 || die 'cargo is not installed; see https://rustup.rs'
target=${CARGO_TARGET_DIR:-$here/target}
case $target in
    /*) ;;
    *) target=$(pwd)/$target ;;
esac
(cd "$here" && CARGO_TARGET_DIR=$target cargo build --locked --profile "$profile" --bin mcpx)
case $profile in
    dev) built=$target/debug/mcpx ;;
    *) built=$target/$profile/mcpx ;;
esac
[ -x "$built" ] || die "cargo built no $built"

rm -f "$man"/mcpx-*.1
put 755 "$built" "$bin/mcpx"
for page in "$here"/man/*.1; do
    put 644 "$page" "$man/$(basename "$page")"
done
put 644 "$here/completions/mcpx.bash" "$bash/mcpx"
put 644 "$here/completions/_mcpx" "$zsh/_mcpx"
put 644 "$here/completions/mcpx.fish" "$fish/mcpx.fish"

"$bin/mcpx" --version >/dev/null || die "$bin/mcpx does not run"
printf 'installed %s to %s\n' "$("$bin/mcpx" --version)" "$bin/mcpx"
case :${PATH:-}: in
    *:"$bin":*) ;;
    *) printf 'note: %s is not on your PATH\n' "$bin" ;;
esac
