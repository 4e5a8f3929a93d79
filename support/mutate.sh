#!/usr/bin/env bash
# mutmut over one file, in a copy of the project; called again, it goes on where it stopped.
#
#     [SAMPLE=200 | AGAIN=1] support/mutate.sh WORK FILE TEST...
#
# WORK/FILE is the copy, TEST... are pytest's arguments: the tests that concern the file. They should
# take seconds, as mutmut runs them once a mutant (of them those that reach the changed function).
# SAMPLE: so many mutants, drawn with seed 0. AGAIN: those that survived, after tests were added.
# Python's environment must have requirements.txt and mutmut, and neither scikit-learn nor scipy.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd) file=$2 copy=$1/${2//\//.}
mkdir -p "$copy"
(cd "$root" && git ls-files -z | xargs -0 cp --parents -u -t "$copy")
shift 2
cat > "$copy/setup.cfg" <<END
[mutmut]
source_paths=$file
also_copy=$(cd "$copy" && for name in *; do case $name in (mutants|setup.cfg) ;; (*) printf '\n    %s' "$name" ;; esac; done)
pytest_add_cli_args=
    -p
    no:cacheprovider
    -p
    no:unraisableexception
    -p
    no:threadexception
pytest_add_cli_args_test_selection=$(printf '\n    %s' "$@")
process_isolation=forkserver
timeout_multiplier=4
timeout_constant=2
on_dependency_change=ignore
use_git_change_detection=false
END
cd "$copy"
export OMP_NUM_THREADS=1
if [ -n "${SAMPLE:-}${AGAIN:-}" ]; then
    mutmut run none || true  # makes the mutants and runs none of them
    names=$(python - "mutants/$file.meta" <<'END'
import json, os, random, sys
codes = json.load(open(sys.argv[1]))["exit_code_by_key"]
drawn = random.Random(0).sample(sorted(codes), min(int(os.getenv("SAMPLE") or len(codes)), len(codes)))
print(*[name for name in drawn if codes[name] == (0 if os.getenv("AGAIN") else None)])
END
)
    [ -z "$names" ] && exit
fi
# shellcheck disable=SC2086
mutmut run --max-children 1 ${names:-}
