"""A local page to steer a plan by: `kdna explore`. server.py serves it, guard.py says to whom.

NiceGUI carries events between the page and session.py, which holds the state and knows nothing of the page.
"""
