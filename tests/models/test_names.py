"""The one table of names covers every leaf of every family, once."""

import math

from emergent_alignment.models import names


def test_every_leaf_has_its_row_and_every_row_its_own_tensors(config):
    shapes, rows = names.parameter_shapes(config), names.tensor_names(config)
    assert rows.keys() == shapes.keys()
    for field in ("huggingface", "gguf"):
        files = [
            getattr(row, field).format(layer=layer)
            for row in rows.values()
            for layer in range(config.num_layers if row.stacked else 1)
        ]
        assert len(set(files)) == len(files)


def test_stacked_leaves_lead_with_layers_and_files_hold_kernels_transposed(config):
    for path, shape in names.parameter_shapes(config).items():
        row = names.tensor_names(config)[path]
        held = names.file_shape(row, shape)
        layers = config.num_layers if row.stacked else 1
        assert math.prod(held) * layers == math.prod(shape)
        assert row.stacked == (path[0] == "layers")
        if row.transposed:
            assert held == shape[:-3:-1]


def test_embeddings_are_tied_by_leaving_the_unembedding_out(config):
    assert (("unembedding",) in names.parameter_shapes(config)) != config.tie_embeddings
