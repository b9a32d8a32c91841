"""The pages of our own at `/`: the numbers of `/api/dashboard` for people, rendered here, a module per page.

They show what integrations, sources and tenants say as text, and change something by POST only, which the door lets in
from pages of ours alone.
"""
