#!/usr/bin/env bash
# Convert the four idx files of MNIST, plain or .gz, to the databases of pairs, LevelDBs as Caffe's own script makes them.
#
#   examples/siamese/create_mnist_siamese.sh IDX_FOLDER [OUTPUT_FOLDER]
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
  exit 1
fi
folder=${1%/} out=${2:-examples/siamese}

# The idx file whose name begins with $1, in one of the forms in which it is distributed.
idx() {
  for file in "$folder/$1"{-,.}"$2"{,.gz}; do
    if [ -f "$file" ]; then echo "$file"; return; fi
  done
  echo "$folder has no file $1-$2 or $1-$2.gz: it must hold the four idx files of MNIST" >&2
  exit 1
}

mkdir -p "$out"
for part in train t10k; do
  images=$(idx "$part-images" idx3-ubyte)
  labels=$(idx "$part-labels" idx1-ubyte)
  [ $part = train ] && name=train || name=test
  caffe convert_mnist_siamese_data "$images" "$labels" "$out/mnist_siamese_${name}_leveldb"
done
