# shellcheck shell=bash
# What slurm/submit and the two job scripts share: reading site.env, and setting up the inside of a job.
# Sourced with the repository as the working folder; knows nothing of training.

# One line on stderr and exit code 2: a mistake the user can mend.
stop() {
    echo "$0: $1" >&2
    exit 2
}

# Set the SITE_ variables from slurm/site.env, or from the file that EARLYBIRD_SITE_ENV names.
read_site() {
    local file="${EARLYBIRD_SITE_ENV:-slurm/site.env}" name
    local required=(SITE_NODES SITE_GPUS_PER_NODE SITE_TASKS_PER_NODE SITE_CPUS_PER_TASK SITE_TIME
        SITE_VENV SITE_LOGS)
    local optional=(SITE_PARTITION SITE_ACCOUNT SITE_GPU_TYPE SITE_MEM SITE_FINETUNE_TIME SITE_ARRAY_LIMIT
        SITE_MODULES SITE_ROOT SITE_DATA SITE_GLUE)
    [[ -f $file ]] || stop "$file does not exist; copy slurm/site.env.example to it and describe your cluster"

    # Only the file counts: a cluster's own SITE_ variables must not leak in.
    for name in "${required[@]}" "${optional[@]}"; do
        printf -v "$name" '%s' ''
    done
    SITE_SBATCH_OPTIONS=()
    while read -r name; do
        case " ${required[*]} ${optional[*]} SITE_SBATCH_OPTIONS " in
            *" $name "*) ;;
            *) stop "$file: $name is not a variable of this file; slurm/site.env.example lists them all" ;;
        esac
    done < <(sed -n -E 's/^(export )?(SITE_[A-Za-z0-9_]*)=.*/\2/p' "$file")
    # shellcheck source=slurm/site.env.example
    source "$file"
    for name in "${required[@]}"; do
        [[ -n ${!name} ]] || stop "$file: $name is not set; slurm/site.env.example says what it means"
    done
    for name in SITE_NODES SITE_GPUS_PER_NODE SITE_TASKS_PER_NODE SITE_CPUS_PER_TASK; do
        [[ ${!name} =~ ^[0-9]+$ ]] || stop "$file: $name is '${!name}', expected a whole number"
    done
}

# Load the modules and put the virtual environment's python first.
enter_site() {
    if [[ -n $SITE_MODULES ]]; then
        declare -F module >/dev/null ||
            stop "SITE_MODULES is '$SITE_MODULES' but there is no 'module' command here; source its init script in site.env"
        set +u # module functions read unset variables
        # shellcheck disable=SC2086 # a list of words
        module load $SITE_MODULES || stop "module load $SITE_MODULES failed on $(hostname)"
        set -u
    fi
    [[ -x $SITE_VENV/bin/python ]] ||
        stop "$SITE_VENV/bin/python does not exist on $(hostname); SITE_VENV in site.env must be on storage that every node sees"
    export PATH="$SITE_VENV/bin:$PATH"
}

# Tell every task where rank 0 listens, and pass this job's settings on to its srun steps.
export_rendezvous() {
    local first
    # The batch script runs on the first node of the list, and so does rank 0. The node's address, not its name:
    # SLURM itself reaches the node by it, also where node names are not in DNS.
    read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=$(scontrol --oneliner show node "$first" | sed -n -E 's/.* NodeAddr=([^ ]+) .*/\1/p')
    [[ -n $MASTER_ADDR ]] || stop "scontrol show node $first gives no NodeAddr"
    # Below Linux's range of ephemeral ports; from the job id, so that jobs sharing a node differ.
    MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
    while (: >"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null; do
        MASTER_PORT=$((15000 + (MASTER_PORT - 15000 + 101) % 15000))
    done
    export MASTER_ADDR MASTER_PORT

    # srun stopped inheriting --cpus-per-task in SLURM 22.05.
    export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
    # Tasks get this shell's environment even where the site submits with --export=NONE.
    export SLURM_EXPORT_ENV=ALL
    # Every line of a task's output starts with its rank.
    export SLURM_LABELIO=1
    # Not what the login shell happened to export: the CPUs a task really has.
    export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"
    export PYTHONUNBUFFERED=1
}

# The first lines of the job's log.
describe_job() {
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)):" \
        "$SLURM_JOB_NUM_NODES node(s) $SLURM_JOB_NODELIST, $SLURM_NTASKS task(s)," \
        "rank 0 at $MASTER_ADDR:$MASTER_PORT"
    echo "command: $*"
}

# pick_task_and_seed INDEX TASKS SEEDS: set `task` and `seed` from comma-separated lists. Seeds vary fastest.
# shellcheck disable=SC2034 # both are read by the caller
pick_task_and_seed() {
    local index=$1 task_list seed_list
    IFS=, read -r -a task_list <<<"$2"
    IFS=, read -r -a seed_list <<<"$3"
    ((index < ${#task_list[@]} * ${#seed_list[@]})) ||
        stop "array index $index, but ${#task_list[@]} tasks x ${#seed_list[@]} seeds end at $((${#task_list[@]} * ${#seed_list[@]} - 1))"
    task=${task_list[index / ${#seed_list[@]}]}
    seed=${seed_list[index % ${#seed_list[@]}]}
}
