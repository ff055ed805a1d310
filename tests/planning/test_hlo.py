"""FLOPs, bytes and collectives read off compiled programs, against XLA's own count where XLA
counts right (no loops), and against programs written out by hand."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from compilation import USERS_FUSIONS

from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import forward
from emergent_alignment.models.model import random_params
from emergent_alignment.planning.hlo import program_cost
from emergent_alignment.planning.hlo_text import arrays_of, parse


def compiled(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile(compiler_options=USERS_FUSIONS)


def test_a_scanned_decoder_costs_what_xla_counts_for_the_unrolled_one(tiny_config, monkeypatch):
    config = tiny_config("llama", hidden_size=512, intermediate_size=1024)
    params = jax.eval_shape(lambda: random_params(config))
    tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)

    def total(params, tokens):
        positions = jnp.broadcast_to(jnp.arange(64), tokens.shape)
        plan = causal_plan(positions)
        hidden, _ = forward(config, params, tokens, positions, plan, remat="full")
        return jnp.square(hidden).sum()

    def program():
        # A function of its own each time: jit would find the other's program.
        step = jax.jit(lambda *arguments: jax.value_and_grad(total)(*arguments))
        return step.lower(params, tokens).compile(compiler_options=USERS_FUSIONS)

    scanned = program()
    monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
    unrolled = program()
    assert "while(" in scanned.as_text() and "while(" not in unrolled.as_text()
    by_xla = unrolled.cost_analysis()["flops"]
    assert program_cost(scanned.as_text()).flops == pytest.approx(by_xla, rel=0.01)
    assert program_cost(unrolled.as_text()).flops == pytest.approx(by_xla, rel=0.01)


def test_accumulation_multiplies_and_loops_in_loops_multiply_twice():
    def step(weights, rows):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        def micro(total, part):
            return total + jax.lax.scan(layer, part, weights)[0].sum(), None

        return jax.lax.scan(micro, 0.0, rows)[0]

    cost = program_cost(compiled(step, (3, 64, 64), (5, 8, 64)).as_text())
    assert cost.flops == 5 * 3 * 2 * 8 * 64 * 64


def test_a_loop_that_data_end_needs_its_trips():
    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ x, x)

    text = compiled(until, (32, 32)).as_text()
    with pytest.raises(ValueError, match="for data to decide"):
        program_cost(text)
    assert program_cost(text, trips=[7]).flops == 7 * 2 * 32**3
    with pytest.raises(ValueError, match="for no loop"):
        program_cost(text, trips=[7, 1])


def test_a_slice_of_a_stack_reads_the_slice_alone():
    def total(stack, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    cost = program_cost(compiled(total, (64, 128, 128), (8, 128)).as_text())
    once = 4 * 64 * 128 * 128
    # Each layer's matrix is read out of the stack, written and read again.
    assert once <= cost.hbm_bytes < 5 * once


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from emergent_alignment.planning.hlo import program_cost

auto = (jax.sharding.AxisType.Auto,) * 2
mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), auto)
def placed(shape, *axes):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))
def cost(function, *arrays, out=P()):
    whole = jax.jit(function, out_shardings=NamedSharding(mesh, out))
    return program_cost(whole.lower(*arrays).compile().as_text())

found = cost(lambda x: x * 2, placed((64, 16), "fsdp"))
assert found.sent == {"all-gather": 3 * 16 * 16 * 4} and found.calls["all-gather"] == 1, found
found = cost(lambda x: x.sum(0), placed((64, 16), "fsdp"))
assert found.sent == {"all-reduce": 2 * 16 * 4 * 3 / 4}, found
found = cost(lambda x, w: x @ w, placed((8, 64), None, "tensor"), placed((64, 32), "tensor"))
assert found.flops == 2 * 8 * 32 * 32 and found.calls == {"all-reduce": 1}, found

def layers(x, stack):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]
found = cost(layers, placed((8, 64)), placed((5, 64, 64), None, "fsdp"))
assert sum(found.calls.values()) >= 5, found
print("counted")
"""


def test_collectives_on_eight_devices_are_counted():
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES], env=environment, capture_output=True, text=True
    )
    assert found.stdout == "counted\n", found.stderr


# As libtpu writes them: tiles and memory spaces in the types, a matmul as a convolution, a loop
# without its trip count, a gather that goes on through two fusions, a reduce-scatter that is an
# all-reduce and a slice, groups of three notations.
TPU_PROGRAM = """\
HloModule jit_f, is_scheduled=true

%start (p.0: bf16[8,128]) -> (bf16[8,128], bf16[64,128], u32[]) {
  %p.0 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=3, replica_groups=[2,8]<=[8,2]T(1,0), dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %custom-call.1 = (bf16[8,128]{1,0}, bf16[64,128]{1,0}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%goes_on (p.1: bf16[8,128], p.2: bf16[16,64]) -> bf16[16,32] {
  %p.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %p.2 = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(1)
  %all-gather.2 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=3, replica_groups=[2,8]<=[8,2]T(1,0), dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  %p.3 = bf16[64,32]{1,0:T(8,128)(2,1)} constant({...})
  ROOT %convolution.1 = bf16[16,32]{1,0:T(8,128)(2,1)} convolution(%p.2, %p.3), dim_labels=bf_io->bf, metadata={op_name="dot_general"}
}

%all-reduce-scatter.1 (p.4: f32[64]) -> f32[16] {
  %p.4 = f32[64]{0:T(128)} parameter(0)
  %p.5 = s32[]{:T(128)} constant(0)
  %all-reduce.2 = f32[64]{0:T(128)} all-reduce(%p.4), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %dynamic-slice.1 = f32[16]{0:T(128)} dynamic-slice(%all-reduce.2, %p.5), dynamic_slice_sizes={16}
}

%body (state: (s32[], bf16[8,128], bf16[16,64])) -> (s32[], bf16[8,128], bf16[16,64]) {
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, /*index=2*/bf16[16,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %two = s32[]{:T(128)} constant(2)
  %counter = s32[]{:T(128)} get-tuple-element(%state), index=0
  %shard = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=1
  %rows = bf16[16,64]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %next = s32[]{:T(128)} add(%counter, %two)
  %started = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) fusion(%shard), kind=kCustom, calls=%start
  %product = bf16[16,32]{1,0:T(8,128)(2,1)} fusion(%shard, %rows), kind=kCustom, calls=%goes_on
  %sum = f32[4]{0:T(128)} all-reduce(%counter), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) tuple(%next, %shard, %rows)
}

%condition (state.1: (s32[], bf16[8,128], bf16[16,64])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %limit = s32[]{:T(128)} constant(7)
  %counter.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter.1, %limit), direction=LT
}

ENTRY %main (a: bf16[8,128], b: bf16[16,64]) -> bf16[16,64] {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(1)
  %one = s32[]{:T(128)} constant(1)
  %one.copy = s32[]{:T(128)} copy(%one)
  %packed = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) tuple(%one.copy, %a, %b)
  %loop = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,64]{1,0:T(8,128)(2,1)}) while(%packed), condition=%condition, body=%body
  %gradient = f32[64]{0:T(128)} constant({...})
  %own.gradient = f32[16]{0:T(128)} fusion(%gradient), kind=kCustom, calls=%all-reduce-scatter.1
  %kernel.5 = bf16[16,64]{1,0} custom-call(%b), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, backend_config={}
  ROOT %result = bf16[16,64]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=2
}
"""  # noqa: E501 (lines as a compiler writes them)


def test_the_text_of_a_tpu_program():
    asked = []

    def kernel_flops(name, operands):
        asked.append((name, operands[0].shape))
        return 1000.0

    cost = program_cost(TPU_PROGRAM, kernel_flops=kernel_flops)
    trips = 3  # from 1 by 2 while less than 7
    assert asked == [("kernel", (16, 64))] and cost.kernels == {"kernel": 1}
    assert cost.flops == trips * 2 * 16 * 64 * 32 + 1000
    assert cost.calls == {"all-gather": trips, "all-reduce": trips, "reduce-scatter": 1}
    assert cost.sent["reduce-scatter"] == 64 * 4 * 3 / 4
    assert cost.sent["all-gather"] == trips * 7 * 8 * 128 * 2
    assert cost.sent["all-reduce"] == trips * 2 * 4 * 3 / 4
    with pytest.raises(ValueError, match="kernel"):
        program_cost(TPU_PROGRAM)


@pytest.mark.parametrize(
    ("attributes", "left", "right", "result", "products"),
    [
        # A matmul over two "spatial" places, one of them padding: half of the four are real.
        ("window={size=2 pad=1_1}, dim_labels=0bf_0io->0bf", "1,8,16", "2,16,32", "2,8,32", 2),
        ("window={size=3 stride=2}, dim_labels=0bf_0io->0bf", "7,8,16", "3,16,32", "3,8,32", 9),
        ("window={size=2 pad=0_0 lhs_dilate=2}, dim_labels=0bf_0io->0bf",
         "3,8,16", "2,16,32", "4,8,32", 4),
    ],
)  # fmt: skip
def test_products_with_padding_do_not_count(attributes, left, right, result, products):
    text = f"""
ENTRY %main (a: f32[{left}], b: f32[{right}]) -> f32[{result}] {{
  %a = f32[{left}]{{2,1,0}} parameter(0)
  %b = f32[{right}]{{2,1,0}} parameter(1)
  ROOT %c = f32[{result}]{{2,1,0}} convolution(%a, %b), {attributes}
}}
"""
    assert program_cost(text).flops == products * 2 * 8 * 16 * 32


def test_types_are_read_with_tiles_and_memory_spaces():
    found = arrays_of("(bf16[8,512]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/pred[], f8e4m3fn[3]{0})")
    assert [(str(a), a.num_bytes, a.memory) for a in found] == [
        ("bf16[8,512]", 8192, 1),
        ("pred[]", 1, 0),
        ("f8e4m3fn[3]", 3, 0),
    ]
    with pytest.raises(ValueError, match="ENTRY"):
        parse("HloModule nothing\n")
