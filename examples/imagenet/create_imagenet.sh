#!/usr/bin/env bash
# Convert the images of ILSVRC12, or any two lists of images and labels, to the databases that the models train on.
#
#   examples/imagenet/create_imagenet.sh TRAIN_FOLDER VAL_FOLDER LIST_FOLDER [OUTPUT_FOLDER]
#
# TRAIN_FOLDER and VAL_FOLDER hold the images, LIST_FOLDER the lists train.txt and val.txt. RESIZE=0 keeps the images'
# size; by default they become 256 x 256.
set -euo pipefail

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 1
fi
train=${1%/}/ val=${2%/}/ lists=${3%/} out=${4:-examples/imagenet}
size=${RESIZE:-256}

for file in "$lists/train.txt" "$lists/val.txt"; do
  [ -f "$file" ] || { echo "$file does not exist: LIST_FOLDER must hold train.txt and val.txt" >&2; exit 1; }
done
mkdir -p "$out"
caffe convert_imageset -resize_height="$size" -resize_width="$size" -shuffle "$train" "$lists/train.txt" "$out/ilsvrc12_train_lmdb"
caffe convert_imageset -resize_height="$size" -resize_width="$size" -shuffle "$val" "$lists/val.txt" "$out/ilsvrc12_val_lmdb"
