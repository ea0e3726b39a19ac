#!/usr/bin/env bash
# Plays the nightly tier of a campaign, and holds the night against the baseline that an accepted night has left.
#
#   examples/nightly.sh NAME     NAME is a campaign below tasks/ whose campaign.toml has [tiers.nightly]
#
# Exit status 0: the night is accepted and not shown to be worse than the baseline. The first accepted night becomes the
# baseline, baselines/NAME.json; commit that file, and remove it to promote another night.
set -euo pipefail

campaign=tasks/$1
night=$campaign/artifacts/tiers/nightly
baseline=baselines/$1.json

# --allow-overwrite: tonight's checkpoint is another one than last night's, so rows that have passed run again.
pytest acceptance --campaign "$campaign" --tier nightly -n "${WORKERS:-1}" --allow-overwrite --junitxml=reports/nightly.xml

if [ -f "$baseline" ]; then
  tracka compare "$baseline" "$night"
else
  mkdir -p baselines
  tracka baseline promote "$night" "$baseline"
fi
