"""The web cockpit: a page that shows the robot and drives it, and the server behind it."""
