"""The task as a job of FLARE's: its FedAvg recipe in its simulator.

python flare_job.py INVITED ROUNDS
"""

import os
import sys

sys.path.insert(0, os.environ["BENCH_FOLDER"])
import work


def recipe(invited, rounds):
    common = {
        "name": work.KIND,
        "min_clients": invited,
        "num_rounds": rounds,
        "train_script": "flare_client.py",
        "launch_external_process": False,
    }
    if work.FRAMEWORK == "numpy":
        from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

        return NumpyFedAvgRecipe(model=work.build()["w"], **common)
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe

    return FedAvgRecipe(model=work.build(), **common)


if __name__ == "__main__":
    from nvflare.recipe.sim_env import SimEnv

    where = os.path.join(os.environ["BENCH_FOLDER"], "flare")
    recipe(int(sys.argv[1]), int(sys.argv[2])).execute(
        SimEnv(num_clients=work.PARTS, workspace_root=where)
    )
