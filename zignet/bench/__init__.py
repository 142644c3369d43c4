"""The benchmarks: of a proxy on a laptop, and of a tunnel between two machines.

`world` is the little net that each happens in, `origin` and `loads` its two ends; `engine` is what all engines
have in common, `engines` are the proxies, `tunnels` the tunnels; `measures` is what is asked of each, `kinds` puts
it together, `report` is what people see; `command` is `zignet bench`.
"""
