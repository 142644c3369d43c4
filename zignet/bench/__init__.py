"""The laptop benchmark.

`world` is the little net it happens in, `origin` and `loads` its two ends, `engines` what is compared,
`measures` what is asked of each, `report` what people see; `command` is `zignet bench`.
"""
