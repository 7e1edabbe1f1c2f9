"""Stand-ins for the provider plugins of Pulumi where those cannot be downloaded: attached by PULUMI_DEBUG_PROVIDERS.

They take the same resources and properties as the real plugins and call the sandbox's servers over the providers' own
wire APIs. They know only the resource types that the programs in stacks/ declare.
"""
