"""Off-policy learning with actor and learner apart: processes on one machine or several, over an authenticated channel.

Actors step environments with the newest parameters and record episodes into stores of their own; the learner commits
what they send to `replay.zarr`, acknowledges it, and makes the updates that are due. Either may crash and come back.
"""
