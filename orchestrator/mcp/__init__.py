"""The MCP server: what agents and editors hand on work with. On stdio, and of this module's own
only the words of the protocol; what is asked is answered by a supervisor.
"""
