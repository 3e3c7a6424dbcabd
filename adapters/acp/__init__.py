"""Agents that speak the Agent Client Protocol on stdin and stdout: one conversation for all.

What is peculiar to one of them is a `Manner`, and how it is started; see adapters/opencode.
"""

from __future__ import annotations

from adapters.acp.conversation import AcpConversation as AcpConversation
from adapters.acp.conversation import Manner as Manner
from adapters.acp.options import PERMISSIONS as PERMISSIONS
from adapters.acp.options import TRUST as TRUST
from adapters.acp.options import TRUST_OPTION as TRUST_OPTION
from adapters.acp.options import Options as Options
from adapters.acp.options import merged as merged
from adapters.acp.options import options_of as options_of
from adapters.acp.start import private_options as private_options
from adapters.acp.start import talking as talking
from adapters.acp.wire import prompt_text as prompt_text
