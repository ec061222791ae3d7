"""Decorated with the schema of its input."""

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("data", StandardPythonParameterType([1, 2]))
@input_schema("factor", StandardPythonParameterType(2))
@output_schema(StandardPythonParameterType([2, 4]))
def run(data, factor=3):
    return [factor * value for value in data]
