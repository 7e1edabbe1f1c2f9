"""What runs inside a guest of the image "records": its init and its record server, shell scripts for busybox."""

RECORD_PORT = 7000
"""Where the record server listens inside the guest."""
WAITS_MARK = "shardwright-waits"
"""What it writes when it waits for its identity."""
READY_MARK = "shardwright-ready"
"""What the guest writes on its serial console once the record server listens."""

INIT = (
    """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b mount -t tmpfs run /run
for module in /lib/*.ko; do $b insmod $module; done
$b stty -echo < /dev/ttyS0
for word in $($b cat /proc/cmdline); do
  case $word in
    shard.address=*) address=${word#*=} ;;
    shard.mtu=*) mtu=${word#*=} ;;
    shard.gateway=*) gateway=${word#*=} ;;
    shard.port=*) port=${word#*=} ;;
    shard.waits=*) waits=${word#*=} ;;
  esac
done
now() { read -r up idle < /proc/uptime; echo "${up%.*}${up#*.}"; }
said() { echo "shardwright-measured $1 $2" > /dev/ttyS0; }
memory() { while read -r name value unit; do [ "$name" = "$1": ] && echo "$value"; done < /proc/meminfo; }

# A single-core score: rounds of a fixed loop per second (the agent compares it with its reference).
rounds=0; began=$(now)
while [ $rounds -lt 20000 ]; do rounds=$((rounds+1)); done
took=$(( $(now) - began )); [ $took -lt 1 ] && took=1
score=$((rounds * 100 / took))

if [ -n "$waits" ]; then
  # Until here all guests are alike: a copy of this moment may become any shard. Whatever makes it one comes below, and
  # without randomness of its own it does not go on.
  exec 4< /dev/ttyS0
  echo WAITS_MARK > /dev/ttyS0
  while read -r what address mac mtu seconds name seed <&4; do [ "$what" = become ] && break; done
  exec 4<&-
  echo "$seed" | $b xxd -r -p | /bin/reseed || exit 1
  unset seed
  $b date -s "@$seconds" > /dev/null
  $b hostname "$name"
  $b ip link set eth0 address "$mac"
  said identity 1
fi
$b ip link set lo up
if [ -n "$address" ]; then
  $b ip addr add "$address" dev eth0
  $b ip link set eth0 mtu "${mtu:-1400}" up
  [ -n "$gateway" ] && $b ip route add default via "$gateway"
fi
said cpu_rounds_per_second $score
said memory_kib "$(memory MemTotal)"

if [ -b /dev/vda ]; then
  began=$(now)
  $b dd if=/dev/vda of=/dev/null bs=4k count=64 iflag=direct 2>/dev/null
  took=$(( $(now) - began )); [ $took -lt 1 ] && took=1
  said read_iops $((64 * 100 / took))
  /bin/position vda
fi
port=${port:-RECORD_PORT}
$b nc -ll -p $port -e /bin/records &
until $b grep -qi "$(printf ':%04x 0' $port)" /proc/net/tcp /proc/net/tcp6 2>/dev/null; do $b usleep 10000; done
echo READY_MARK > /dev/ttyS0

# Asked on the console to measure itself: "cpu SECONDS", "disk READS", "received SECONDS", "flood SECONDS ADDRESS",
# "memory 1", "hold KIB", "random 1". One answer a line.
while read -r what amount address; do
  case $amount in ''|*[!0-9]*) continue ;; esac
  case $what in
    cpu)
      rounds=0; began=$(now); t=$began
      while [ $((t - began)) -lt $((amount * 100)) ]; do
        i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done
        rounds=$((rounds + 1000))
        read -r up idle < /proc/uptime; t=${up%.*}${up#*.}
      done
      said cpu_rounds_per_second $((rounds * 100 / (t - began)))
      ;;
    disk)
      # Two runs, of which the second reads that many more: what starting a program takes counts in neither.
      for reads in 16 $((amount + 16)); do
        began=$(now)
        $b dd if=/dev/vda of=/dev/null bs=4k count=$reads iflag=direct 2>/dev/null
        [ $reads -gt 16 ] && took=$(( $(now) - began - took )) || took=$(( $(now) - began ))
      done
      [ $took -lt 1 ] && took=1
      said read_iops $((amount * 100 / took))
      ;;
    received)
      bytes=/sys/class/net/eth0/statistics/rx_bytes
      read -r first < $bytes; began=$(now)
      $b sleep $amount
      read -r last < $bytes
      said received_kbit_per_second $(( (last - first) * 8 / 10 / ($(now) - began) ))
      ;;
    flood)
      # Single frames: TCP would hand the card bundles of them, whose headers nobody counts.
      bytes=/sys/class/net/eth0/statistics/tx_bytes
      read -r first < $bytes
      $b timeout $amount $b ping -q -i 0.002 -s 60000 "$address" > /dev/null 2>&1
      read -r last < $bytes
      said flooded_bytes $((last - first))
      ;;
    random) said random $(($($b od -An -N4 -tu4 /dev/urandom))) ;;
    memory)
      said available_kib "$(memory MemAvailable)"
      said memory_kib "$(memory MemTotal)"
      ;;
    hold)
      # So many KiB until told otherwise.
      $b umount /run/held 2>/dev/null
      $b mkdir -p /run/held
      $b mount -t tmpfs -o size=$((amount + 64))k held /run/held
      $b dd if=/dev/zero of=/run/held/it bs=64k count=$((amount / 64)) 2>/dev/null
      said held_kib $(( $($b stat -c %s /run/held/it) / 1024 ))
      ;;
  esac
done < /dev/ttyS0 &
wait
""".replace("READY_MARK", READY_MARK)
    .replace("WAITS_MARK", WAITS_MARK)
    .replace("RECORD_PORT", str(RECORD_PORT))
)

POSITION = """#!/bin/busybox sh
# Records lie in consecutive sectors: the first empty one of disk $1 is found by bisection, on a new disk at once.
b=/bin/busybox
disk=/dev/$1
used() { [ -n "$($b dd if=$disk bs=512 skip=$1 count=1 2>/dev/null | $b tr -d '\\000 \\n')" ]; }
low=0; high=0
used 0 && high=$(( $($b blockdev --getsize64 $disk) / 512 ))
while [ $low -lt $high ]; do
  middle=$(( (low + high) / 2 ))
  if used $middle; then
    low=$((middle + 1))
  else
    high=$middle
  fi
done
echo $low > /run/position.$1
"""

RECORD_SERVER = """#!/bin/busybox sh
# One connection: a decimal number a line in, the same number out once it is on the disk. Others wait for their turn.
exec 2>/dev/ttyS0
until /bin/busybox mkdir /run/turn 2>/dev/null; do /bin/busybox usleep 50000; done
trap '/bin/busybox rmdir /run/turn' EXIT; trap '' PIPE
disk=vda
[ -b /dev/vdb ] && disk=vdb
[ -f /run/position.$disk ] || /bin/position $disk
exec 3<>/dev/$disk
read -r position < /run/position.$disk
/bin/busybox dd bs=512 count=0 seek="$position" <&3 >&3 2>/dev/null
while read -r -t 300 number; do
  case $number in
    ''|*[!0-9]*) echo error; continue ;;
  esac
  if printf '%-511s\\n' "$number" >&3 && sync -d /dev/$disk; then
    position=$((position + 1))
    echo $position > /run/position.$disk
    echo "$number"
  else
    echo error
    exit 1
  fi
done
"""
