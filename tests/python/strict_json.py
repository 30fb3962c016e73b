"""Strict reading of the JSON of a proof file: docs/FORMAT.md section 13. Every refusal has the name of its check."""

import json


class Refused(Exception):
    def __init__(self, check, why=""):
        super().__init__(f"{check}: {why}")
        self.check = check


def need(condition, check, why=""):
    if not condition:
        raise Refused(check, why)


def strict_json(raw):
    def no_twice(pairs):
        need(len({k for k, _ in pairs}) == len(pairs), "duplicate-name")
        return dict(pairs)

    def whole(text):
        need(text.isascii() and text.isdigit() and len(text) < 21, "integer", text)
        return int(text)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=no_twice, parse_int=whole, parse_float=whole, parse_constant=whole)
    except (ValueError, RecursionError) as error:
        raise Refused("json", str(error)) from None
    depth, layer = 0, [value]
    while layer := [v for v in layer if isinstance(v, (dict, list))]:
        depth += 1
        layer = [inner for outer in layer for inner in (outer.values() if isinstance(outer, dict) else outer)]
    need(depth <= 127, "json", "nested too deep")
    return value


def fields(obj, required, optional=()):
    need(isinstance(obj, dict), "field", "an object is missing")
    need(all(k in required or k in optional for k in obj), "unknown-field", str(set(obj) - set(required) - set(optional)))
    need(all(k in obj for k in required), "field", f"one of {required} is missing")
    return [obj.get(k) for k in (*required, *optional)]


def unhex(text, length=None):
    need(isinstance(text, str), "field", "a byte string is missing")
    need(len(text) % 2 == 0 and set(text) <= set("0123456789abcdef"), "hex")
    need(length is None or len(text) == 2 * length, "hex", f"not {length} bytes")
    return bytes.fromhex(text)


def integer(value, bits=64):
    if isinstance(value, str):
        need(value.isascii() and value.isdigit() and len(value) < 21 and str(int(value)) == value, "integer")
        value = int(value)
    else:
        need(type(value) is int and value <= 1 << 53, "integer")
    need(value < 1 << bits, "integer")
    return value


def array(value):
    need(isinstance(value, list), "field", "an array is missing")
    return value


def hashes(value):
    return [unhex(h, 32) for h in array(value)]


def optional_bytes(value):
    return None if value is None else unhex(value)
