"""Compiles the packet path where there is a C compiler; without one the same files run interpreted."""

from Cython.Build import cythonize
from setuptools import Extension, setup

# Ordinary typed Python modules, in Cython's pure-Python mode: there is no second source.
COMPILED = [
    "nat.arrival",
    "nat.checksum",
    "nat.craft",
    "nat.dial",
    "nat.expiry",
    "nat.flow",
    "nat.gateway",
    "nat.listener",
    "nat.loop",
    "nat.packet",
    "nat.relay",
    "nat.table",
    "nat.tally",
    "nat.tcp",
    "nat.udp",
    "zignet.dns.name_table",
    "zignet.peers.receive",
    "zignet.peers.send",
    "zignet.policy.keytable",
]


extensions = cythonize(
    [
        Extension(module, [module.replace(".", "/") + ".py"], extra_compile_args=["-O2", "-g0"])
        for module in COMPILED
    ],
    build_dir="build/cython",
    compiler_directives={"language_level": 3},
    show_all_warnings=False,
)
for extension in extensions:
    extension.optional = (
        True  # the installation does without what cannot be built; cythonize drops this if set before
    )

setup(ext_modules=extensions)
