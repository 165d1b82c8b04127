"""`workload-identity-operator check`: reads a cluster and says what is wrong and how to mend it.

    findings      what can be found, in words of its own; the report
    cluster       what was seen of a cluster, and what may not be looked at
    annotations, rights, workloads, installation, certificate, issuer, chain
                  judgements: what was seen in, findings out; no I/O, no clock
    gathering     edge: the API server, as whoever the kubeconfig says, and the issuer's public documents
    terminal      edge: tables, JSON, progress
    command       edge: the command line

It runs on an administrator's machine: nothing here is imported by the operator.
"""
