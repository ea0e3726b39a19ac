#!/bin/bash
# A real Slurm of two nodes, in namespaces of its own. FOLDER holds its settings, keys, state and logs; run as root:
#   unshare --net --uts --pid --mount --fork --mount-proc --kill-child bash cluster.sh FOLDER run
# A daemon that was killed is started again, from inside the same namespaces, by: cluster.sh FOLDER slurmctld|slurmd NODE
set -euo pipefail
folder=$1
export SLURM_CONF=$folder/slurm.conf

settings() {
  mkdir -p "$folder"/{state,spool,log,munge,dev}
  for number in {0..7}; do mknod "$folder/dev/gpu$number" c 1 3; done
  dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
  chmod 400 "$folder/munge/key"
  # Where the kernel gives no cgroups, processes are followed by their parents and memory is looked at every second.
  cat > "$SLURM_CONF" <<C
ClusterName=tracka
SlurmctldHost=controller(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SlurmctldPort=16817
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/%n
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=50
GresTypes=gpu
ReturnToService=2
KillWait=2
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=10
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName=node1 NodeAddr=127.0.0.2 Port=16818 CPUs=16 RealMemory=16000 Gres=gpu:8 Feature=small
NodeName=node2 NodeAddr=127.0.0.3 Port=16819 CPUs=16 RealMemory=16000 Gres=gpu:8 Feature=large
PartitionName=two Nodes=node1,node2 Default=YES State=UP PriorityTier=1
PartitionName=one Nodes=node1 State=UP PriorityTier=1
PartitionName=urgent Nodes=node1,node2 State=UP PriorityTier=10
C
  echo "Name=gpu File=$folder/dev/gpu[0-7]" > "$folder/gres.conf"
}

slurmd_of() {
  unshare --uts bash -c 'hostname "$1" && slurmd -N "$1"' node "$1"
}

case $2 in
  run)
    settings
    ip link set lo up
    ip address add 127.0.0.2/8 dev lo  # of a wide scope, or Slurm would find no family of addresses
    ip address add 127.0.0.3/8 dev lo
    hostname controller
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
      --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld
    slurmd_of node1
    slurmd_of node2
    sleep infinity
    ;;
  slurmctld) slurmctld ;;
  slurmd) slurmd_of "$3" ;;
esac
