#!/usr/bin/env python3
"""Writes tests/valid/*.pt and tests/hostile/*.pt: small PyTorch files, byte by byte.

Needs only the standard library; the same script writes the same files. Nothing in the repository unpickles them
with Python, and nobody should: some would run a command.

    python3 python/make_hostile_pt.py [tests]
"""

import io
import pathlib
import struct
import sys
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C


class Global:
    """A name that the pickle imports."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """`function(*args)`, by REDUCE."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


class Instance:
    """`cls.__new__(cls)` with `state` set on it: NEWOBJ, BUILD."""

    def __init__(self, cls, state):
        self.cls, self.state = cls, state


class Raw:
    """Opcodes as they are."""

    def __init__(self, opcodes):
        self.opcodes = opcodes


class Storage:
    """A persistent id; `numel` is what the pickle declares, `data` what the archive holds."""

    def __init__(self, kind, key, data, numel=None, module="torch"):
        size = {"Float": 4, "Int": 4, "Double": 8, "Long": 8, "Half": 2, "BFloat16": 2, "Short": 2}.get(kind, 1)
        self.type = Global(module, kind + "Storage")
        self.key, self.data, self.size = key, data, size
        self.numel = len(data) // size if numel is None else numel


def emit(out, value, protocol=2):
    """Appends the opcodes that build `value`."""
    if isinstance(value, Raw):
        out += value.opcodes
    elif value is None:
        out += b"N"
    elif isinstance(value, bool):
        out += b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        if -(2**31) <= value < 2**31:
            out += b"J" + struct.pack("<i", value)
        else:
            raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
            out += b"\x8a" + bytes([len(raw)]) + raw
    elif isinstance(value, str):
        raw = value.encode()
        out += b"\x8c" + bytes([len(raw)]) + raw if protocol >= 4 else b"X" + struct.pack("<I", len(raw)) + raw
    elif isinstance(value, tuple):
        out += b"("
        for item in value:
            emit(out, item, protocol)
        out += b"t"
    elif isinstance(value, list):
        out += b"]("
        for item in value:
            emit(out, item, protocol)
        out += b"e"
    elif isinstance(value, dict):
        out += b"}("
        for key, item in value.items():
            emit(out, key, protocol)
            emit(out, item, protocol)
        out += b"u"
    elif isinstance(value, Global):
        if protocol >= 4:
            emit(out, value.module, protocol)
            out += b"\x94"
            emit(out, value.name, protocol)
            out += b"\x94\x93\x94"
        else:
            out += f"c{value.module}\n{value.name}\n".encode()
    elif isinstance(value, Call):
        emit(out, value.function, protocol)
        emit(out, value.args, protocol)
        out += b"R"
    elif isinstance(value, Instance):
        emit(out, value.cls, protocol)
        out += b")\x81"
        emit(out, value.state, protocol)
        out += b"b"
    elif isinstance(value, Storage):
        emit(out, ("storage", value.type, value.key, "cpu", value.numel), protocol)
        out += b"Q"
    else:
        raise TypeError(value)


def pickle(value, protocol=2):
    out = bytearray(b"\x80" + bytes([protocol]))
    emit(out, value, protocol)
    return bytes(out) + b"."


def storages(value):
    """All storages inside `value`, each once, in order."""
    return list({storage.key: storage for storage in walk(value)}.values())


def walk(value):
    if isinstance(value, Storage):
        return [value]
    if isinstance(value, Call):
        return walk(value.args)
    if isinstance(value, Instance):
        return walk(value.state)
    if isinstance(value, dict):
        value = list(value.values())
    return [s for item in value for s in walk(item)] if isinstance(value, (list, tuple)) else []


def archive(value, protocol=2, compress=False, without=()):
    """The zip format: data.pkl, and one entry per storage."""
    return archive_of(pickle(value, protocol), storages(value), compress, without)


def archive_of(data_pkl, stored=(), compress=False, without=()):
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as file:

        def add(name, data):
            info = zipfile.ZipInfo("archive/" + name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            info.create_system = 0
            file.writestr(info, data, compresslevel=9)

        add("data.pkl", data_pkl)
        add("byteorder", b"little")
        for storage in stored:
            if storage.key not in without:
                add("data/" + storage.key, storage.data)
        add("version", b"3\n")
    return buffer.getvalue()


def legacy(value):
    """The format before PyTorch 1.6: five pickles, then count and bytes of each storage."""
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    stored = storages(value)
    pickles = [MAGIC, 1001, system, value, [s.key for s in stored]]
    data = [struct.pack("<q", len(s.data) // s.size) + s.data for s in stored]
    return b"".join([pickle(p) for p in pickles] + data)


ORDERED_DICT = Global("collections", "OrderedDict")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(storage, shape, stride=None, offset=0):
    if stride is None:
        stride, step = [], 1
        for extent in reversed(shape):
            stride.insert(0, step)
            step *= extent
    return Call(REBUILD, storage, offset, tuple(shape), tuple(stride), False, Call(ORDERED_DICT))


def floats(key, *values):
    return Storage("Float", key, struct.pack(f"<{len(values)}f", *values))


def weights(**more):
    """A well-formed tensor `w` = [1, 2, 3], and what is asked for beside it."""
    return {"w": tensor(floats("0", 1, 2, 3), (3,)), **more}


def valid():
    untyped = Storage("Untyped", "u16", struct.pack("<2H", 7, 65535), numel=4, module="torch.storage")
    rebuild_v3 = Global("torch._utils", "_rebuild_tensor_v3")
    dtypes = {
        "f64": tensor(Storage("Double", "f64", struct.pack("<2d", 0.1, -2.5)), (2,)),
        "f32": tensor(floats("f32", 0.1, -2.5), (2,)),
        "f16": tensor(Storage("Half", "f16", struct.pack("<3e", 1.5, -0.25, 65504)), (3,)),
        # The upper halves of the f32 patterns of 1, -2 and 3.140625.
        "bf16": tensor(Storage("BFloat16", "bf16", struct.pack("<3H", 0x3F80, 0xC000, 0x4049)), (3,)),
        "i64": tensor(Storage("Long", "i64", struct.pack("<3q", -1, 5, 2**40)), (3,)),
        "i32": tensor(Storage("Int", "i32", struct.pack("<2i", -7, 2**24)), (2,)),
        "i16": tensor(Storage("Short", "i16", struct.pack("<2h", -300, 300)), (2,)),
        "i8": tensor(Storage("Char", "i8", struct.pack("<2b", -128, 127)), (2,)),
        "u8": tensor(Storage("Byte", "u8", bytes([0, 255])), (2,)),
        "bool": tensor(Storage("Bool", "bool", bytes([0, 1, 1])), (3,)),
        "u16": Call(rebuild_v3, untyped, 0, (2,), (1,), False, Call(ORDERED_DICT), Global("torch", "uint16"), None),
    }
    six = floats("six", 0, 1, 2, 3, 4, 5)
    views = {
        "transposed": tensor(six, (3, 2), (1, 3)),
        "tail": tensor(six, (2,), (1,), offset=4),
        "column": tensor(six, (2,), (3,), offset=1),
        "expanded": tensor(six, (2, 2), (0, 1), offset=2),
        "scalar": tensor(six, (), (), offset=5),
        "empty": tensor(six, (0, 4), (4, 1)),
    }
    linear = Instance(
        Global("torch.nn.modules.linear", "Linear"),
        {
            "training": True,
            "_parameters": {
                "weight": Call(
                    Global("torch._utils", "_rebuild_parameter"),
                    tensor(floats("lw", 1, 2, 3, 4), (2, 2)),
                    True,
                    Call(ORDERED_DICT),
                ),
                "bias": None,
            },
            "_buffers": {},
            "_modules": {},
        },
    )
    buffers = {"table": tensor(floats("table", 9), (1,))}
    net = Instance(Global("__main__", "Net"), {"_parameters": {}, "_buffers": buffers, "_modules": {"fc": linear}})
    optimizer = {"state": {0: {"exp_avg": tensor(floats("gone", 1, 2), (2,))}}}
    old = "module._ndp_module._item_proj_module.1."
    return {
        "dtypes.pt": archive(dtypes),
        "views.pt": archive(views),
        "plain.pt": archive(weights()),
        "compressed.pt": archive(weights(), compress=True),
        "protocol4.pt": archive(weights(), protocol=4),
        "state_dict.pt": archive({"epoch": 3, "state_dict": weights()}),
        "model.pt": archive({"epoch": 3, "model": weights()}),
        "model_names.pt": archive({"model.w": weights()["w"], "model": "a name"}),
        "legacy.pt": legacy({"model_state_dict": weights(), "optimizer_state_dict": {}}),
        "legacy_views.pt": legacy({k: v for k, v in views.items() if k == "transposed"}),
        "whole_module.pt": archive(net),
        # The bytes of the optimizer's storage are missing: nobody may want them.
        "optimizer.pt": archive(
            {"model_state_dict": weights(), "optimizer_state_dict": optimizer}, without=["gone"]
        ),
        "optimizer_flat.pt": archive({**weights(), "optimizer": optimizer}, without=["gone"]),
        "old_names.pt": archive(
            {"model_state_dict": {old + "weight": weights()["w"], old + "bias": tensor(floats("b", 4), (1,))}}
        ),
    }


def hostile():
    run = ("touch PWNED",)
    system, evaluate = Global("posix", "system"), Global("builtins", "eval")
    python = "__import__('os').system('touch PWNED')"
    popped = Raw(b"cposix\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR0N")
    memo = Raw(b"cposix\nsystem\nq\x01)\x810h\x01(X\x0b\x00\x00\x00touch PWNEDtR")
    computed = Raw(b"\x8c\x05posix\x8c\x06system0\x8c\x06system\x93(\x8c\x0btouch PWNEDtR")
    one = floats("one", 1)
    calls = {
        "call_os_system.pt": archive(weights(x=Call(system, *run))),
        "call_eval.pt": archive(weights(x=Call(evaluate, python))),
        "call_eval_protocol4.pt": archive(weights(x=Call(evaluate, python)), protocol=4),
        "call_popped.pt": archive(weights(x=popped)),
        "call_from_memo.pt": archive(weights(x=memo)),
        "call_popped_name.pt": archive(weights(x=computed), protocol=4),
        "call_old_instance.pt": archive(weights(x=Raw(b"(X\x0b\x00\x00\x00touch PWNEDiposix\nsystem\n"))),
        "call_dotted.pt": archive(weights(x=Call(Global("torch.nn", "modules.os.system"), *run)), protocol=4),
        "call_legacy.pt": legacy(weights(x=Call(system, *run))),
        "call_build.pt": archive(weights(x=Raw(b"cposix\nsystem\n}b"))),
    }
    config = Global("recbole.config.configurator", "Config")
    settings = {"n_heads": 2, "hidden_act": Call(evaluate, python)}
    # As `savemodel` of GRU4Rec_PyTorch_Official pickles it: a function of the object itself is looked up by name.
    program = Instance(Global("gru4rec_pytorch", "GRU4Rec"), {"loss_function": Call(Global("builtins", "getattr"), 1, "xe_loss")})
    programs = {
        "import_recbole.pt": archive({"config": Instance(config, {"final_config_dict": settings}), "state_dict": weights()}),
        "import_recbole_module.pt": archive({"config": Call(Global("recbolex.config", "Config")), "state_dict": weights()}),
        "import_rectools.pt": archive({"state_dict": weights(), "hyper_parameters": {"model_config": Call(system, *run)}}),
        "import_lightning.pt": archive({"state_dict": weights(), "callbacks": Call(evaluate, python)}),
        "import_gru4rec.pt": archive(program),
        "import_pickle.pt": b"\x80\x04cposix\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR.",
    }
    # BERT4Rec of RecBole 1.0 and 1.1: whole, but without an output layer.
    one_by_one = {"item_embedding.weight": (3, 1), "position_embedding.weight": (4, 1), "LayerNorm.weight": (1,), "LayerNorm.bias": (1,)}
    block = "trm_encoder.layer.0"
    for layer in [f"{block}.multi_head_attention.{part}" for part in ("query", "key", "value", "dense")] + [
        f"{block}.feed_forward.dense_{i}" for i in (1, 2)
    ]:
        one_by_one |= {f"{layer}.weight": (1, 1), f"{layer}.bias": (1,)}
    for norm in (f"{block}.multi_head_attention.LayerNorm", f"{block}.feed_forward.LayerNorm"):
        one_by_one |= {f"{norm}.weight": (1,), f"{norm}.bias": (1,)}
    values_of = lambda i, shape: floats(str(i), *[0.5] * shape[0])
    state = {name: tensor(values_of(i, shape), shape) for i, (name, shape) in enumerate(one_by_one.items())}
    settings = {"model": "BERT4Rec", "n_heads": 1, "hidden_act": "gelu"}
    programs["import_recbole_bert4rec.pt"] = archive(
        {"config": Instance(config, {"final_config_dict": settings}), "state_dict": state}
    )
    sizes = {
        "storage_short.pt": archive({"w": tensor(Storage("Float", "0", b"\0" * 8, numel=3), (3,))}),
        "storage_missing.pt": archive(weights(), without=["0"]),
        "offset_outside.pt": archive({"w": tensor(floats("0", 1, 2, 3), (2,), (1,), offset=2)}),
        "shape_huge.pt": archive({"w": tensor(one, (2**40,))}),
        "shape_overflow.pt": archive({"w": tensor(one, (2**62, 2**62))}),
        "storage_huge.pt": archive({"w": tensor(Storage("Float", "0", b"\0" * 4, numel=2**61), (2**61,))}),
        "storage_claims.pt": archive({"w": tensor(Storage("Float", "0", b"\0" * 4, numel=2**28), (2**28,))}),
        "legacy_storage_claims.pt": legacy({"w": tensor(Storage("Float", "0", b"\0" * 4, numel=2**28), (2**28,))}),
        "stride_zero_huge.pt": archive({"w": tensor(one, (2**31,), (0,))}),
        "stride_negative.pt": archive({"w": tensor(floats("0", 1, 2), (2,), (-1,), offset=1)}),
        "stride_overflow.pt": archive({"w": tensor(one, (3, 3), (2**62, 2**62))}),
        "stride_rank.pt": archive({"w": tensor(floats("0", 1, 2), (2,), (1, 1))}),
        "offset_negative.pt": archive({"w": tensor(floats("0", 1, 2), (1,), (1,), offset=-1)}),
        "bomb_storage.pt": archive(
            {"w": tensor(Storage("Float", "0", b"\0" * (65 << 20)), (65 << 18,))}, compress=True
        ),
        "bomb_pickle.pt": archive_of(b"\x80\x02" + b"N" * (4 << 20) + b".", compress=True),
        "bomb_text.pt": archive_of(b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 100 + b"."),
        "bomb_memo.pt": archive_of(b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * 40 + b"."),
        "bomb_text_in_memo.pt": archive_of(b"\x80\x04\x8d" + struct.pack("<Q", 50_000) + b"a" * 50_000 + b"\x94" * 50_000 + b".", compress=True),
        "bomb_name_in_memo.pt": archive_of(
            b"\x80\x04" + 2 * (b"\x8d" + struct.pack("<Q", 50_000) + b"a" * 50_000) + b"\x93" + b"\x94" * 50_000 + b".", compress=True
        ),
        "deep.pt": archive_of(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", compress=True),
    }
    values = {
        "nan.pt": archive({"w": tensor(floats("0", 1, float("nan"), float("inf")), (3,))}),
        "infinite.pt": archive({"w": tensor(Storage("Half", "0", struct.pack("<2H", 0x3C00, 0xFC00)), (2,))}),
        "too_large.pt": archive({"w": tensor(Storage("Double", "0", struct.pack("<2d", 1, 1e300)), (2,))}),
    }
    shapes = {
        "no_tensors.pt": archive({"epoch": 3}),
        "not_a_dict.pt": archive([1, 2]),
        "same_name.pt": archive({"w": weights()["w"], "module.w": tensor(floats("1", 4), (1,))}),
        "big_endian.pt": archive(weights()).replace(b"little", b"bigbig"),
        "no_pickle.pt": archive(weights()).replace(b"data.pkl", b"data.nix"),
        "complex.pt": archive({"w": tensor(Storage("ComplexFloat", "0", b"\0" * 8), (1,))}),
    }
    return {**calls, **programs, **sizes, **values, **shapes}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests")
    for kind, files in (("valid", valid()), ("hostile", hostile())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / kind / name).write_bytes(data)


if __name__ == "__main__":
    main()
