"""An agent on LiteLLM: mini-swe-agent, with calls of the model and a shell that are ours. Run by
the path of its `__main__.py`, in the environment that mini-swe-agent is installed in.
"""
