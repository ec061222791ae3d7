"""Deployments: a registered model and a score script, brought to a place that answers HTTP.

    trainer deploy ──prepare──▶ Deployment ──Services.deploy──▶ a service, and its record in .trainer/services/
    trainer score  ──find──▶ Services.refresh, keys ──ask──▶ POST /score

What a backend must do is :class:`trainer.deploy.service.Services`.
"""
