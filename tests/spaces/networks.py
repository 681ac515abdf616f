"""Small networks that tests prune: what each op ties together, and what it freezes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HEAD = "[a] p = Conv<pads=[1,1,1,1]>(x, wa, ba)"  # x [2, 4, 8, 8] -> p [2, 8, 8, 8]: channels, height, width alike
TAIL = "[z] y = Conv(q, wz)"
C = (1, 8, 1, 1)


class Network(NamedTuple):
    """A middle part that makes q of p, in ONNX's text form.

    Attributes:
        pieces: of the channel group that layer a writes first; 0 where there is none.
        frozen: part of the reason then.
        channels: of q.
        constants: values, or shapes of random weights.
    """

    middle: str
    pieces: int
    frozen: str
    channels: int
    constants: dict[str, np.ndarray | tuple[int, ...]]


def network(middle: str, pieces: int, frozen: str = "", channels: int = 8, **constants) -> Network:
    return Network(middle, pieces, frozen, channels, constants)


def shape(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.int64)


# fmt: off
NETWORKS = {
    # layers
    "conv": network("[b] q = Conv<pads=[1,1,1,1]>(p, w, v)", 8, w=(8, 8, 3, 3), v=(8,)),
    "strided conv": network("[b] q = Conv<strides=[2,2]>(p, w)", 8, w=(8, 8, 2, 2)),
    "dilated conv": network("[b] q = Conv<dilations=[2,2], pads=[2,2,2,2]>(p, w)", 8, w=(8, 8, 3, 3)),
    "grouped conv": network("[b] q = Conv<group=2>(p, w, v)", 4, w=(8, 4, 1, 1), v=(8,)),
    "grouped conv with one output a group": network("[b] q = Conv<group=4>(p, w)", 2, channels=4, w=(4, 2, 1, 1)),
    "depthwise conv": network("[b] q = Conv<group=8, pads=[1,1,1,1]>(p, w, v)", 8, w=(8, 1, 3, 3), v=(8,)),
    "depthwise conv with multiplier": network("[b] q = Conv<group=8>(p, w, v)", 8, channels=24, w=(24, 1, 1, 1), v=(24,)),
    "transposed conv": network("[b] q = ConvTranspose<strides=[2,2]>(p, w, v)", 8, w=(8, 8, 2, 2), v=(8,)),
    "grouped transposed conv": network("[b] q = ConvTranspose<group=2>(p, w, v)", 4, channels=6, w=(8, 3, 1, 1), v=(6,)),
    "depthwise transposed conv":
        network("[b] q = ConvTranspose<group=8, strides=[2,2]>(p, w, v)", 8, w=(8, 1, 4, 4), v=(8,)),
    "depthwise transposed conv with multiplier":
        network("[b] q = ConvTranspose<group=8>(p, w, v)", 8, channels=16, w=(8, 2, 1, 1), v=(16,)),
    "computed weights": network("c = Conv(x, wc) m = ReduceMean<keepdims=1>(c, ax) q = Conv(p, m)", 0, "Conv",
        wc=(8, 4, 1, 1), ax=shape(0), channels=1),
    "layer twice": network("[b] r = Conv(p, w, v) s = Relu(r) [c] q = Conv(s, w, v)", 8, w=(8, 8, 1, 1), v=(8,)),
    "shared bias": network("[b] r = Conv(p, w, v) [c] q = Conv(r, u, v)", 8, w=(8, 8, 1, 1), u=(8, 8, 1, 1), v=(8,)),
    "weights used in two ways": network("[b] r = Conv(p, w) [c] q = Conv<strides=[2,2]>(r, w)", 0, "no layer",
        w=(8, 8, 1, 1)),
    "tokens": network("r = Reshape(p, s) t = Transpose<perm=[0,2,1]>(r) [b] m = MatMul(t, w) n = Add(m, v)"
        "u = Transpose<perm=[0,2,1]>(n) q = Reshape(u, f)", 8, s=shape(2, 8, 64), f=shape(2, 8, 8, 8), w=(8, 8), v=(8,)),
    "constant matrices": network("r = Reshape(p, s) t = Transpose<perm=[0,2,1]>(r) m = MatMul(t, w)"
        "u = Transpose<perm=[0,2,1]>(m)"
        "c = Reshape(u, f) [b] d = Conv(p, v) q = Add(c, d)", 8, s=shape(2, 8, 64), f=shape(2, 8, 8, 8), w=(2, 8, 8),
        v=(8, 8, 1, 1)),
    "constant on the left": network("t = Reshape(p, s) m = MatMul(w, t) r = Reshape(m, f) [c] u = Conv(p, v)"
        "q = Add(r, u)",
        8, s=shape(2, 8, 64), f=shape(2, 8, 8, 8), w=(8, 8), v=(8, 8, 1, 1)),
    "gemm": network("g = GlobalAveragePool(p) f = Flatten(g) [b] h = Gemm(f, w, v) r = Relu(h)"
        "[c] k = Gemm<transB=1>(r, u, v)"
        "q = Unsqueeze(k, ax)", 8, w=(8, 8), v=(8,), u=(8, 8), ax=shape(2, 3)),
    "flatten then gemm": network("f = Flatten(p) [b] k = Gemm<transB=1>(f, w, v) q = Unsqueeze(k, ax)", 8,
        w=(8, 512), v=(8,), ax=shape(2, 3)),
    # elementwise
    "constant of four axes": network("r = Mul(p, m) q = Add(r, n)", 8, m=C, n=C),
    "constant of three axes": network("r = Sub(p, m) s = Abs(n) q = Div(r, s)", 8, m=(8, 1, 1), n=(8, 1, 1)),
    "constants of the whole": network("q = Add(p, m)", 8, m=(8, 8, 8)),
    "constants over the width": network("r = Add(p, m) q = Mul(r, n)", 8, m=(8,), n=(8, 1)),
    "scalars": network("r = Mul(p, m) q = Add(n, r)", 8, m=(), n=(1,)),
    "constant first": network("r = Sub(m, p) q = Div(n, r)", 8, m=C, n=(8, 1, 1)),
    "sum": network("[b] r = Conv(p, w) q = Add(p, r)", 8, w=(8, 8, 1, 1)),
    "product": network("[b] r = Conv(p, w) s = Sigmoid(r) q = Mul(s, p)", 8, w=(8, 8, 1, 1)),
    "spatial attention": network("[b] r = Conv(p, w) s = Sigmoid(r) q = Mul(p, s)", 8, w=(1, 8, 1, 1)),
    "prelu": network("q = PRelu(p, m)", 8, m=(8, 1, 1)),
    "clip and where": network("r = Clip(p, m, n) s = Greater(p, k) q = Where(s, r, l)", 8, m=(), n=(), k=C, l=(8, 1, 1)),
    "integers between": network("[b] r = Conv(p, w) i = Cast<to=7>(r) j = Mul(i, k) f = Cast<to=1>(j) q = Add(p, f)", 8,
        w=(8, 8, 1, 1), k=np.arange(8).reshape(8, 1, 1)),
    "integer vector": network("g = ReduceMean<keepdims=0>(p, ax) i = Cast<to=7>(g) j = Add(i, k) f = Cast<to=1>(j)"
        "u = Unsqueeze(f, bx) q = Add(p, u)", 8, ax=shape(0, 2, 3), bx=shape(0, 2, 3), k=np.arange(8)),
    # cutting and joining
    "concat": network("[b] r = Conv(p, w) q = Concat<axis=1>(p, r, p)", 8, channels=21, w=(5, 8, 1, 1)),
    "concat of itself": network("r = Concat<axis=-3>(p, p) [b] q = Conv<group=2>(r, w)", 8, w=(8, 8, 1, 1)),
    "concat with constants": network("q = Concat<axis=1>(m, p, n)", 8, channels=11, m=(2, 1, 8, 8), n=(2, 2, 8, 8)),
    "split": network("r, s = Split<axis=1>(p, k) [b] t = Conv(r, w) q = Concat<axis=1>(t, s)", 3, channels=8,
        k=shape(3, 5), w=(3, 3, 1, 1)),
    "split into equal parts": network("r, s = Split<axis=1, num_outputs=2>(p) q = Mul(r, s)", 4, channels=4),
    "split into unequal parts": network("r, s, t = Split<axis=-3, num_outputs=3>(p) q = Concat<axis=1>(t, r)", 3,
        channels=5),
    "split off one": network("r, s = Split<axis=1>(p, k) q = Mul(r, s)", 7, channels=7, k=shape(1, 7)),
    "slice": network("r = Slice(p, i, j, k) [b] s = Conv(r, w) t = Slice(s, l, m, k) q = Add(t, t)", 3, channels=2,
        i=shape(2), j=shape(5), k=shape(1), l=shape(-2), m=shape(1 << 40), w=(4, 3, 1, 1)),
    "crop and channels": network("r = Slice(p, i, j, k) q = Relu(r)", 4, channels=4, i=shape(-4, 1), j=shape(99, -1),
        k=shape(1, 3)),
    "slices of every second": network("r = Slice(p, i, j, k, l) q = Relu(r)", 0, "Slice", channels=4,
        i=shape(0), j=shape(8), k=shape(1), l=shape(2)),
    "channels in reverse": network("q = Slice(p, i, j, k, l)", 0, "Slice", i=shape(-1), j=shape(-99), k=shape(1),
        l=shape(-1)),
    "gather": network("q = Gather<axis=1>(p, k)", 4, channels=4, k=shape(7, 0, -3, 2)),
    "gather in another order": network("r = Gather<axis=-3>(p, k) q = Add(p, r)", 0, "Add", k=shape(1, 2,
        3, 4, 5, 6, 7, 0)),
    "gather pairs": network("r = Gather<axis=1>(p, k) q = Add(p, r)", 4, k=shape(1, 0, 3, 2, 5, 4, 7, 6)),
    "gather twice": network("q = Gather<axis=1>(p, k)", 0, "Gather", channels=3, k=shape(0, 1, 1)),
    "gather one": network("r = Gather<axis=1>(p, k) s = Unsqueeze(r, l) q = Mul(p, s)", 7, k=np.array(3), l=shape(1)),
    # normalisation and statistics
    "batch norm": network("r = Relu(p) q = BatchNormalization(r, m, n, k, l)", 8, m=(8,), n=(8,), k=(8,),
        l=np.arange(1, 9, dtype=np.float32)),
    "instance norm": network("q = InstanceNormalization(p, m, n)", 8, m=(8,), n=(8,)),
    "group norm": network("q = GroupNormalization<num_groups=4>(p, m, n)", 4, m=(8,), n=(8,)),
    "group norm over all": network("q = GroupNormalization<num_groups=1>(p, m, n)", 0, "GroupNormalization", m=(8,),
        n=(8,)),
    "group norm written out": network("r = Reshape(p, s) i = InstanceNormalization(r, m, n) t = Reshape(i, f)"
        "u = Mul(t, k)"
        "q = Add(u, l)", 4, s=shape(0, 4, -1), f=shape(2, 8, 8, 8), m=np.ones(4, np.float32), n=(4,), k=C, l=(8, 1, 1)),
    "layer norm": network("r = Transpose<perm=[0,2,3,1]>(p) n = LayerNormalization<axis=-1>(r, m)"
        "q = Transpose<perm=[0,3,1,2]>(n)",
        0, "LayerNormalization", m=(8,)),
    "layer norm of one channel": network("r = Reshape(p, s) n = LayerNormalization<axis=-1>(r, m) q = Reshape(n, f)", 8,
        s=shape(2, 8, 64), f=shape(2, 8, 8, 8), m=(64,)),
    "softmax over channels": network("q = Softmax<axis=1>(p)", 0, "Softmax"),
    "softmax over pixels": network("q = Softmax<axis=-1>(p)", 8),
    "mean over pixels": network("m = ReduceMean(p, ax) q = Mul(p, m)", 8, ax=shape(2, -1)),
    "mean over channels": network("m = ReduceMean<keepdims=1>(p, ax) q = Sub(p, m)", 0, "ReduceMean", ax=shape(1)),
    "mean over everything": network("m = ReduceMean(p) q = Sub(p, m)", 0, "ReduceMean"),
    "mean over nothing": network("m = ReduceMean<noop_with_empty_axes=1>(p, ax) [b] r = Conv(p, w) q = Sub(r, m)", 8,
        ax=shape(), w=(8, 8, 1, 1)),
    "mean without the axes": network("m = ReduceMax<keepdims=0>(p, ax) u = Unsqueeze(m, bx) q = Mul(p, u)", 8,
        ax=shape(3, 2), bx=shape(2, -1)),
    "squeeze and excite": network("g = GlobalAveragePool(p) [b] h = Conv(g, w, v) r = Relu(h) [c] k = Conv(r, u)"
        "s = HardSigmoid(k)"
        "q = Mul(p, s)", 8, w=(2, 8, 1, 1), v=(2,), u=(8, 2, 1, 1)),
    "one constant for unrelated nodes": network("i = InstanceNormalization(p, m, n) [b] r = Conv(i, w) s = Mul(r, k)"
        "t = InstanceNormalization(s, m, n) q = BatchNormalization(t, m, n, n, m)", 8, w=(8, 8, 1, 1),
        m=np.ones(8, np.float32), n=np.zeros(8, np.float32), k=C),
    # windows and resampling
    "pooling": network("r = MaxPool<kernel_shape=[2,2], strides=[2,2]>(p)"
        "s = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(r)"
        "t = LpPool<kernel_shape=[2,2]>(s) q = GlobalMaxPool(t)", 8),
    "resize by scales": network('q = Resize<mode="linear">(p, , k)', 8, k=np.array([1, 1, 2, 2], np.float32)),
    "resize to sizes": network('q = Resize<mode="nearest">(p, , , k)', 8, k=shape(2, 8, 12, 12)),
    "resize to sizes of two axes": network('q = Resize<mode="cubic", axes=[3,2]>(p, , , k)', 8, k=shape(9, 8)),
    "resize of channels": network('q = Resize<mode="linear">(p, , k)', 0, "Resize", channels=16,
        k=np.array([1, 2, 1, 1], np.float32)),
    "pad": network('r = Pad<mode="reflect">(p, m) s = Pad(r, n, , k) q = Relu(s)', 8, m=shape(0, 0, 1, 1, 0, 0, 1, 1),
        n=shape(1, 1), k=shape(-1)),
    "pad of channels": network("q = Pad(p, m)", 0, "Pad", channels=12, m=shape(0, 0, 0, 0, 0, 4, 0, 0)),
    "shift of channels": network("q = Pad(p, m)", 0, "Pad", m=shape(0, -1, 0, 0, 0, 1, 0, 0)),
    "tile": network("q = Tile(p, k)", 8, k=shape(1, 1, 2, 1)),
    "tiled channels": network("q = Tile(p, k)", 0, "Tile", channels=16, k=shape(1, 2, 1, 1)),
    "expand": network("g = GlobalAveragePool(p) e = Expand(g, k) q = Mul(e, p)", 8, k=shape(8, 1, 8)),
    # pixel shuffles and the like
    "pixel shuffle": network('q = DepthToSpace<blocksize=2, mode="CRD">(p)', 2, channels=2),
    "pixel shuffle behind a layer that others read":
        network('d = DepthToSpace<blocksize=2, mode="CRD">(p) [b] r = Conv<strides=[2,2]>(d, w) q = Add(p, r)', 2, w=(8,
        2, 2, 2)),
    "depth to space": network("q = DepthToSpace<blocksize=2>(p)", 2, channels=2),
    "depth to one channel": network("[b] r = Conv(p, w) q = DepthToSpace<blocksize=2>(r)", 8, channels=1, w=(4, 8, 1, 1)),
    "space to depth": network("q = SpaceToDepth<blocksize=2>(p)", 8, channels=32),
    "pixel shuffle written out": network("r = Reshape(p, s) t = Transpose<perm=[0,1,4,2,5,3]>(r) q = Reshape(t, f)", 2,
        channels=2,
        s=shape(2, 2, 2, 2, 8, 8), f=shape(0, 2, 16, -1)),
    "pixel unshuffle written out": network("r = Reshape(p, s) t = Transpose<perm=[0,1,3,5,2,4]>(r) q = Reshape(t, f)", 8,
        channels=32, s=shape(2, 8, 4, 2, 4, 2), f=shape(2, -1, 4, 4)),
    "channel shuffle": network("[c] g = Conv<group=2>(p, w) r = Reshape(g, s) t = Transpose<perm=[0,2,1,3,4]>(r)"
        "u = Reshape(t, f)"
        "[b] q = Conv<group=2>(u, w2)", 4, s=shape(2, 2, 4, 8, 8), f=shape(2, 8, 8, 8), w=(8, 4, 1, 1), w2=(8, 4, 1, 1)),
    "channel shuffle alone": network("r = Reshape(p, s) t = Transpose<perm=[0,2,1,3,4]>(r) q = Reshape(t, f)", 4,
        s=shape(2, 2, 4, 8, 8), f=shape(2, 8, 8, 8)),
    "channels last and back": network("t = Transpose<perm=[0,2,3,1]>(p) m = Mul(t, k) q = Transpose<perm=[0,3,1,2]>(m)",
        8, k=(8,)),
    "zeros in shapes": network("r = Reshape(p, s) t = Relu(r) q = Reshape(t, f)", 8, s=shape(0, 0, -1), f=shape(0, 0, 8,
        -1)),
    # attention
    "window attention": network("t = Transpose<perm=[0,2,3,1]>(p) r = Reshape(t, s1)"
        "w0 = Transpose<perm=[0,1,3,2,4,5]>(r)"
        "n = Reshape(w0, s2) [b] m = MatMul(n, w) ma = Add(m, v) h = Reshape(ma, s3) hp = Transpose<perm=[2,0,3,1,4]>(h)"
        "k1 = Gather<axis=0>(hp, i0) k2 = Gather<axis=0>(hp, i1) k3 = Gather<axis=0>(hp, i2) ks = Mul(k1, sc)"
        "kt = Transpose<perm=[0,1,3,2]>(k2) at = MatMul(ks, kt) ab = Add(at, rb) sm = Softmax<axis=-1>(ab)"
        "o = MatMul(sm, k3)"
        "ot = Transpose<perm=[0,2,1,3]>(o) oc = Reshape(ot, s2) [c] pr = MatMul(oc, wp) u = Reshape(pr, s4)"
        "uu = Transpose<perm=[0,5,1,3,2,4]>(u) q = Reshape(uu, f)", 8,
        s1=shape(2, 2, 4, 2, 4, 8), s2=shape(-1, 16, 8), s3=shape(8, 16, 3, 2, 4), s4=shape(2, 2, 2, 4, 4, 8),
        f=shape(2, 8, 8, 8),
        i0=np.array(0), i1=np.array(1), i2=np.array(-1), sc=(), rb=(2, 16, 16), w=(8, 24), v=(24,), wp=(8, 8)),
    "attention with separate q, k, v": network("r = Reshape(p, s) t = Transpose<perm=[0,2,1]>(r) [b] k1 = MatMul(t, w1)"
        "[c] k2 = MatMul(t, w2) [d] k3 = MatMul(t, w3) h1 = Reshape(k1, h) h2 = Reshape(k2, h) h3 = Reshape(k3, h)"
        "t1 = Transpose<perm=[0,2,1,3]>(h1) t2 = Transpose<perm=[0,2,3,1]>(h2) t3 = Transpose<perm=[0,2,1,3]>(h3)"
        "at = MatMul(t1, t2) sm = Softmax(at) o = MatMul(sm, t3) ot = Transpose<perm=[0,2,1,3]>(o) oc = Reshape(ot, s2)"
        "[e] pr = MatMul(oc, wp) u = Transpose<perm=[0,2,1]>(pr) q = Reshape(u, f)", 8, s=shape(2, 8, 64), h=shape(2,
        64, 4, 2),
        s2=shape(2, 64, 8), f=shape(2, 8, 8, 8), w1=(8, 8), w2=(8, 8), w3=(8, 8), wp=(8, 8)),
    "channel attention": network("[b] m = Conv(p, w) r = Reshape(m, s) k1, k2, k3 = Split<axis=1, num_outputs=3>(r)"
        "kt = Transpose<perm=[0,2,1]>(k2) at = MatMul(k1, kt) sm = Softmax(at) o = MatMul(sm, k3) q = Reshape(o, f)", 8,
        w=(24, 8, 1, 1), s=shape(2, 24, 64), f=shape(2, 8, 8, 8)),
    # what nobody knows
    "einsum": network('q = Einsum<equation="nchw->nchw">(p)', 0, "Einsum"),
    "if": network("c = ReduceMean<keepdims=0>(x) g = Greater(c, m) q = If(g) <then_branch = t () => (float[2,8,8,8] e1)"
        "{ e1 = Relu(p) }, else_branch = e () => (float[2,8,8,8] e2) { e2 = Neg(p) }>", 0, "If", m=()),
    "indices of a maximum": network("r, i = MaxPool<kernel_shape=[2,2]>(p) f = Cast<to=1>(i) q = Add(r, f)", 0,
        "MaxPool"),
}
# fmt: on


# fmt: off
FREE = {  # on x [N, 4, H, W], p [N, 8, H, W], with the sizes that are computed
    "tokens": network("s = Shape(p) n0 = Gather<axis=0>(s, i0) c0 = Gather<axis=0>(s, i1) u0 = Unsqueeze(n0, i0v)"
        "u1 = Unsqueeze(c0, i0v)"
        "s1 = Concat<axis=0>(u0, u1, last) r = Reshape(p, s1) t = Transpose<perm=[0,2,1]>(r) [b] m = MatMul(t, w)"
        "u = Transpose<perm=[0,2,1]>(m) hw = Slice(s, two, four, i0v) s2 = Concat<axis=0>(u0, u1, hw)"
        "q = Reshape(u, s2)", 8,
        w=(8, 8), i0=np.array(0), i1=np.array(1), i0v=shape(0), last=shape(-1), two=shape(2), four=shape(4)),
    "tokens of a known width": network("s = Shape<start=0, end=1>(p) s1 = Concat<axis=0>(s, ch, last) r = Reshape(p, s1)"
        "t = Transpose<perm=[0,2,1]>(r) [b] m = MatMul(t, w) u = Transpose<perm=[0,2,1]>(m) hw = Shape<start=2>(p)"
        "s2 = Concat<axis=0>(s, out, hw) q = Reshape(u, s2)", 8, channels=6, w=(8, 6), ch=shape(8), out=shape(6),
        last=shape(-1)),
    "to the size of another": network("d = MaxPool<kernel_shape=[2,2], strides=[2,2]>(p) [b] e = Conv(d, w) s = Shape(e)"
        "nc = Slice(s, zero, two)"
        "f = Shape(p) hw = Slice(f, two, big) z = Concat<axis=0>(nc, hw) r = Resize(e, , , z) q = Add(p, r)", 8, w=(8,
        8, 1, 1),
        zero=shape(0), two=shape(2), big=shape(1 << 60)),
    "channels and a border cut": network("q = Slice(p, i, j, k)", 5, channels=5, i=shape(2, 1, -7), j=shape(7, -1, 99),
        k=shape(1, 2, 3)),
    "cropped to a computed size": network("d = Pad(p, m) s = Shape(p) e = Slice(s, two, big) q = Slice(d, z, e, k)", 8,
        m=shape(0, 0, 1, 1, 0, 0, 1, 1), two=shape(2), big=shape(9), z=shape(0, 0), k=shape(2, 3)),
    "channels counted": network("s = Shape(p) n0 = Gather<axis=0>(s, one) f = Cast<to=1>(n0) g = Sqrt(f) q = Div(p, g)",
        0, "Cast",
        one=np.array(1)),
    "entries counted": network("s = Size(p) f = Cast<to=1>(s) q = Div(p, f)", 0, "Size"),
    "pixels counted": network("s = Shape<start=2>(p) f = Cast<to=1>(s) g = ReduceProd<keepdims=0>(f) q = Div(p, g)", 8),
    "ones of its size": network("s = Shape(p) o = ConstantOfShape(s) q = Add(p, o)", 0, "ConstantOfShape"),
    "expanded to its size": network("s = Shape(p) e = Expand(k, s) q = Mul(p, e)", 8, k=C),
    "halves by computed sizes": network("s = Shape(p) c1 = Slice(s, one, two) h = Div(c1, two) z = Concat<axis=0>(h, h)"
        "r, t = Split<axis=1>(p, z)"
        "q = Mul(r, t)", 0, "Div", channels=4, one=shape(1), two=shape(2)),
    "windows": network("s = Shape(p) n0 = Slice(s, zero, one) h = Slice(s, two, three) hd = Div(h, four)"
        "w0 = Slice(s, three, four)"
        "wd = Div(w0, four) s1 = Concat<axis=0>(n0, eight, hd, four, wd, four) r = Reshape(p, s1)"
        "t = Transpose<perm=[0,2,4,3,5,1]>(r) v = Reshape(t, s2) [b] m = MatMul(v, w)"
        "s3 = Concat<axis=0>(n0, hd, wd, four, four, eight)"
        "k = Reshape(m, s3) t2 = Transpose<perm=[0,5,1,3,2,4]>(k) s4 = Concat<axis=0>(n0, eight, h, w0)"
        "q = Reshape(t2, s4)", 8,
        w=(8, 8), zero=shape(0), one=shape(1), two=shape(2), three=shape(3), four=shape(4), eight=shape(8), s2=shape(-1,
        16, 8)),
}
# fmt: on
