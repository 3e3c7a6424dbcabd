"""What runs inside another interpreter than ours. Nothing here is imported by orchestrate
itself.
"""
