"""What travels with a job to the machine that runs it.

Modules here import the standard library, NumPy, Chainer and, guarded, CuPy; nothing else of
``trainer``. Importing this package imports none of them.
"""
