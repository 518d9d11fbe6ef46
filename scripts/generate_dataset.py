"""Step 3: the teacher writes requests and answers for each schema; valid ones stay -> d_03_dataset.jsonl, d_03_hub/.

python scripts/generate_dataset.py --schemas my_schemas/ --run mine
"""

import sys

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.data.dataset import check_own_schemas, schema_source, write_dataset
from schema_student.data.hub import push_to_hub, write_hub_dataset


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["teacher", "dataset", "prompt"])
    where = paths(settings)
    if dry_run(settings, reads=[schema_source(settings)], writes=[where.dataset, where.hub_dataset]):
        check_own_schemas(settings)
    else:
        write_dataset(settings)
        print(f"dataset: {where.dataset}; with its card: {write_hub_dataset(settings)}")
        if settings.push.push_to_hub:
            print(f"pushed to {push_to_hub(where.hub_dataset, settings)}")


if __name__ == "__main__":
    run_script(main)
