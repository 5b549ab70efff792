"""The rewrites, one module each, in the order in which they run within their phase."""

ORDER = (
    "write_dockerignore",
    "copy_manifests_first",
    "use_npm_ci",
    "join_apt_update",
    "merge_run",
    "skip_apt_recommends",
    "clean_apt_lists",
    "skip_apk_cache",
    "skip_pip_cache",
    "clean_dnf_cache",
    "clean_zypper_cache",
    "clean_gem_cache",
    "clean_npm_cache",
    "clean_yarn_cache",
    "add_to_copy",
    "use_exec_form",
    "replace_maintainer",
)
