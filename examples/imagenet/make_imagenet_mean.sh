#!/usr/bin/env bash
# Compute the mean image of the training database that create_imagenet.sh has made.
#
#   examples/imagenet/make_imagenet_mean.sh [FOLDER]
set -euo pipefail

folder=${1:-examples/imagenet}
caffe compute_image_mean "$folder/ilsvrc12_train_lmdb" "$folder/imagenet_mean.binaryproto"
