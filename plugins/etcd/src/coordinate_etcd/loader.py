"""Loads the released etcd3 with any protobuf of today.

etcd3 0.12.0 carries message classes that were generated for protobuf 3; newer ones refuse to run that code. The same
files hold the serialized descriptors that the classes were generated from, as plain literals: they are read, never
run, and the classes are made anew, in a descriptor pool of their own, so that another etcd client in this process is
not disturbed. A release of etcd3 whose generated code has another form is imported as it is.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

_FILES = ("kv", "auth", "rpc")
"""In the order in which they refer to each other."""
_PACKAGE = "etcd3.etcdrpc"
_ARGUMENT = "serialized_pb"
_lock = threading.Lock()


def load() -> Any:  # noqa: ANN401 -- a module of generated code without types
    """Return the module ``etcd3.etcdrpc``: message classes and stubs. Other threads wait for the first call.

    gRPC's own log goes to stderr past Python's logging; it is turned off unless ``GRPC_VERBOSITY`` says otherwise.

    Raises:
        ImportError: etcd3 is missing, or neither its descriptors nor its own code can be used.
    """
    with _lock:
        if _PACKAGE not in sys.modules:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            _prepare()
        return importlib.import_module(_PACKAGE)


def _prepare() -> None:
    """Put rebuilt message modules where etcd3 looks for its own."""
    serialized = {name: _descriptor(name) for name in _FILES}
    if not all(serialized.values()):
        return  # newer code, that protobuf runs by itself
    from google.protobuf import descriptor_pool  # noqa: PLC0415 -- loaded for those who name an etcd URL

    pool = descriptor_pool.DescriptorPool()
    modules = {f"{_PACKAGE}.{name}_pb2": _module(f"{name}_pb2", data, pool) for name, data in serialized.items()}
    sys.modules.update(modules)
    try:
        importlib.import_module(_PACKAGE)
    except BaseException:
        for name in modules:
            sys.modules.pop(name, None)
        raise


def _descriptor(name: str) -> bytes:
    """Return the descriptor that a generated file of etcd3 was made from; nothing if it has another form."""
    spec = importlib.util.find_spec("etcd3")
    if spec is None or not spec.submodule_search_locations:
        message = "the package etcd3 is not installed: pip install coordinate-etcd"
        raise ImportError(message)
    path = Path(spec.submodule_search_locations[0], "etcdrpc", f"{name}_pb2.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == _ARGUMENT and isinstance(node.value, ast.Call):
            (argument,) = node.value.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                # protoc wrote each byte as the character of that number, for Python 2 and 3 alike.
                return argument.value.encode("latin-1")
    return b""


def _module(name: str, data: bytes, pool: DescriptorPool) -> types.ModuleType:
    """Return a module with the message classes, enumerations and their values of one descriptor."""
    from google.protobuf import descriptor_pb2, message_factory  # noqa: PLC0415 -- as above
    from google.protobuf.internal import enum_type_wrapper  # noqa: PLC0415 -- as above

    pool.AddSerializedFile(data)
    file = pool.FindFileByName(descriptor_pb2.FileDescriptorProto.FromString(data).name)
    module = types.ModuleType(f"{_PACKAGE}.{name}")
    found: dict[str, object] = {"DESCRIPTOR": file}
    for each, message in file.message_types_by_name.items():
        found[each] = message_factory.GetMessageClass(message)
    for each, enumeration in file.enum_types_by_name.items():
        found[each] = enum_type_wrapper.EnumTypeWrapper(enumeration)
        found |= {value.name: value.number for value in enumeration.values}
    module.__dict__.update(found)
    return module
