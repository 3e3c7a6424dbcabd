"""The front of aider, which prints no JSON lines: it wraps functions of aider, and tells what they
do. Run by the path of its `__main__.py`, in the environment that aider is installed in.
"""
