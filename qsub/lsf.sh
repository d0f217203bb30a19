#!/bin/bash
# LSF, an example: drivers, and RELION's own commands in its container. LSF reads the script from
# its standard input: crboost's `submit` in the run's directory does that.
# XXX...XXX are filled when a run is made and when RELION submits: see README.md.
#BSUB -J "XXXnameXXX"
#BSUB -q XXXextra1XXX
#BSUB -n XXXextra2XXX
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=XXXextra3XXX]"
#BSUB -gpu "num=XXXextra4XXX"
#BSUB -W XXXextra5XXX
#BSUB -o XXXoutfileXXX
#BSUB -e XXXerrfileXXX
#BSUB -rn

job=XXXnameXXX

# Who looks for this job finds it by its number.
printf '{"id": "%s", "host": "%s", "started_unix": %s}\n' "$LSB_JOBID" "$(hostname)" "$(date +%s)" \
  >"${job}submission_started.json.new" &&
  mv "${job}submission_started.json.new" "${job}submission_started.json"

# What an outer container or the submitting shell would have ours do.
unset APPTAINER_BIND APPTAINER_BINDPATH SINGULARITY_BIND SINGULARITY_BINDPATH
XXXsetupXXX

# In the background and in a process group of its own, so that a signal gets to all of it at once.
set -m
XXXcontainerXXX bash -e -s <<'CRBOOST_COMMAND' &
{
XXXlauncherXXX XXXcommandXXX
} </dev/null
CRBOOST_COMMAND
command=$!
set +m

trap 'kill -s TERM -- "-$command" 2>/dev/null' TERM INT USR2
wait "$command"
code=$?
# A signal ends `wait`, not the command: give it the time that the scheduler gives us.
for _ in $(seq 100); do
  kill -s 0 -- "-$command" 2>/dev/null || break
  sleep 0.2
done
kill -s 0 -- "-$command" 2>/dev/null || { wait "$command"; code=$?; }
trap '' TERM INT USR2

# The command says itself how it ended. Where it could not, RELION would wait for ever.
if [ ! -e "${job}RELION_JOB_EXIT_SUCCESS" ] && [ ! -e "${job}RELION_JOB_EXIT_FAILURE" ] &&
  [ ! -e "${job}RELION_JOB_EXIT_ABORTED" ]; then
  how="ended with exit code $code"
  if [ "$code" -gt 128 ]; then how="$how (killed by SIG$(kill -l $((code - 128))))"; fi
  echo "crboost schemer: the job's command $how and left no RELION_JOB_EXIT_ file" >&2
  if [ -e "${job}RELION_JOB_ABORT_NOW" ]; then
    : >"${job}RELION_JOB_EXIT_ABORTED"
  else
    : >"${job}RELION_JOB_EXIT_FAILURE"
  fi
fi
exit "$code"
