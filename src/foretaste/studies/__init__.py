"""Studies: several audits that answer one question together, such as the claims of a paper. From records, no torch.

`spec` reads a plan; `page` writes what the records of its audits say. Small plans on the embedded digits lie here.
"""
