"""Folders of an image by what they are to a rewrite: said once, since they are nearly the same everywhere and never quite."""

from __future__ import annotations

import re

# Where programs lie: folders that every distribution has, and that are on the PATH.
PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# What every image has, the distroless ones too, or what the kernel gives.
THERE_ALWAYS = re.compile(
    r"^/(proc|sys|dev|tmp|run|var/run)(/|$)|^/etc/(ssl|hosts|resolv\.conf|hostname|passwd|group|localtime)|^/usr/share/zoneinfo"
)
# Where programs of the system look for their settings and data.
LOOKED_UP = tuple(
    """/etc /lib /lib64 /bin /sbin /usr/bin /usr/sbin /usr/lib /usr/libexec /usr/share /usr/include /usr/local/bin
    /usr/local/sbin /usr/local/lib /usr/local/share /usr/local/etc /usr/local/include /var/lib/apt /var/lib/dpkg
    /var/cache""".split()
)
# What is root's, and must not be given to another user.
ROOTS_OWN = re.compile(r"^/(etc|usr|bin|sbin|lib|lib64|boot|root|sys|opt/venv|var/lib/(apt|dpkg))(/|$)|^/$")
# Where any user may write.
ANYONES = re.compile(r"^/(tmp|var/tmp|dev|proc|run/secrets)(/|$)")
# Everything but the folders that applications are put into (/app, /srv, /opt, /home, /data, ...).
OF_SYSTEM = re.compile(r"^/(usr|etc|var|lib\w*|bin|sbin|run|root|boot|media|mnt|proc|sys|dev|tmp)(/|$)")
