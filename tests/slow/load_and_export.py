"""One of two hosts, as Slurm starts them: loads a model cut over both and exports it, and says how
much of it was here. Arguments: the model, where to export it to.
"""

import json
import sys

from emergent_alignment.models import checkpoint
from emergent_alignment.models import export as export_module
from emergent_alignment.models.model import export, load
from emergent_alignment.parallel.hosts import connect
from emergent_alignment.parallel.mesh import make_mesh

read, gathered = [], []


def counted(function, sizes):
    def call(*arguments):
        tensor = function(*arguments)
        sizes.append(tensor.nbytes)
        return tensor

    return call


if __name__ == "__main__":
    model_directory, directory = sys.argv[1:]
    connect("slurm", timeout_seconds=30)
    source = checkpoint.SafetensorsSource
    source.read = counted(source.read, read)
    export_module.whole = counted(export_module.whole, gathered)
    model = load(model_directory, mesh=make_mesh({"data": 1, "fsdp": 4, "tensor": 2}))
    export(model, directory)
    print(json.dumps({"read": sum(read), "largest": max(gathered), "all": sum(gathered)}))
