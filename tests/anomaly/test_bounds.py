"""KL, likelihoods and bounds against their definitions, and against a model whose evidence is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.anomaly.bounds import bounds, kl_per_latent, log_normal
from lightning_modules.anomaly.likelihoods import Bernoulli, Discretised, Gaussian, make_likelihood
from lightning_modules.anomaly.vae import VAE, draw

DOUBLE = {"dtype": torch.float64}


def test_the_kl_is_torchs_and_0_at_the_prior():
    mean, log_variance = torch.randn(5, 4, **DOUBLE), torch.randn(5, 4, **DOUBLE)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(1, **DOUBLE), 1.0))
    torch.testing.assert_close(kl_per_latent(mean, log_variance), theirs, rtol=0, atol=1e-12)
    assert not kl_per_latent(torch.zeros(2, 3), torch.zeros(2, 3)).any()
    z = torch.randn(5, 4, **DOUBLE)
    ours = log_normal(z, mean, log_variance)
    torch.testing.assert_close(ours, Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(1), rtol=0, atol=1e-12)


def test_bernoulli_and_gaussian_are_torchs():
    outputs, x = torch.randn(3, 2, 4, 5, **DOUBLE), torch.randint(0, 2, (3, 2, 4, 5)).double()
    theirs = TorchBernoulli(logits=outputs).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(x, outputs), theirs, rtol=0, atol=1e-12)
    grey, likelihood = torch.rand(3, 2, 4, 5, **DOUBLE), Gaussian(0.3).double()
    theirs = Normal(outputs, likelihood.sigma).log_prob(grey).sum((1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(grey, outputs), theirs, rtol=1e-12, atol=0)


def test_a_learned_sigma_is_best_at_the_mean_squared_error():
    x, outputs = torch.rand(6, 1, 4, 4, **DOUBLE), torch.rand(6, 1, 4, 4, **DOUBLE)
    likelihood = Gaussian().double()
    with torch.no_grad():
        likelihood.log_sigma.copy_((x - outputs).square().mean().log() / 2)
    likelihood.log_prob(x, outputs).sum().backward()
    assert abs(likelihood.log_sigma.grad) < 1e-9


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sigma", [1e-4, 0.05, 3.0])
def test_discretised_masses_sum_to_1(levels, sigma):
    likelihood = Discretised(levels, sigma).double()
    every = (torch.arange(levels, **DOUBLE) / (levels - 1)).view(-1, 1, 1, 1)
    for output in (-50.0, -0.1, 0.0, 0.4, 1.0, 60.0):
        masses = likelihood.log_prob(every, torch.full_like(every, output))
        assert masses.isfinite().all()
        assert masses.exp().sum().item() == pytest.approx(1, abs=1e-6)
    single = likelihood.float().log_prob(every.float(), torch.full_like(every, 0.4).float())
    assert single.isfinite().all(), "in float32 too"


def small(likelihood="bernoulli", **options) -> tuple[VAE, nn.Module, Tensor]:
    network = VAE(ImageSpec(1, 8, 8, 17), latent=3, hidden=16, **options)
    images = torch.randint(0, 17, (6, 1, 8, 8), dtype=torch.uint8)
    return network, make_likelihood(likelihood, 17), images


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretised"])
def test_more_samples_make_a_tighter_bound(likelihood):
    network, made, images = small(likelihood)
    x, (mean, log_variance) = images / 16, network.encode(images)
    with torch.no_grad():
        mean, log_variance = mean + torch.randn_like(mean), log_variance - 1  # far from the posterior
    found = {}
    for samples in (1, 5, 50):
        drawn = [
            bounds(network, made, x, mean, log_variance, samples, torch.Generator().manual_seed(n)) for n in range(40)
        ]
        found[samples] = torch.stack([bound.iwae for bound in drawn]).mean()
        elbo = torch.stack([bound.elbo for bound in drawn]).mean()
        assert elbo < found[samples] + 0.2
    assert found[1] < found[5] < found[50]


def test_bounds_do_not_depend_on_how_many_images_there_are():
    network, made, images = small()
    x, (mean, log_variance) = images / 16, network.encode(images)
    whole = bounds(network, made, x, mean, log_variance, 3000, torch.Generator().manual_seed(0))
    first = bounds(network, made, x[:1], mean[:1], log_variance[:1], 3000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(first.iwae, whole.iwae[:1])


# A linear Gaussian model: probabilistic PCA, whose evidence is known


class Linear(nn.Module):
    """x = W z + b + noise of σ; W has orthogonal columns, so that the posterior has independent latents."""

    def __init__(self, dims: int, latent: int):
        super().__init__()
        directions = torch.linalg.qr(torch.randn(dims, latent, **DOUBLE))[0]
        self.weight = directions * torch.linspace(2.0, 0.5, latent, **DOUBLE)
        self.bias, self.sigma = torch.randn(dims, **DOUBLE), 0.7

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T + self.bias).view(len(z), 1, 1, -1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = 1 + self.weight.square().sum(0) / self.sigma**2
        mean = (x - self.bias) @ self.weight / self.sigma**2 / precision
        return mean, -precision.log().expand_as(mean)

    def evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(len(self.bias), **DOUBLE)
        return MultivariateNormal(self.bias, covariance).log_prob(x)


def test_under_the_exact_posterior_every_sample_has_the_evidence():
    model, likelihood = Linear(7, 3), Gaussian(0.7).double()
    x = torch.randn(5, 7, **DOUBLE) * 2
    mean, log_variance = model.posterior(x)
    z = draw(mean, log_variance)
    joint = likelihood.log_prob(x.view(5, 1, 1, 7), model.decode(z)) + log_normal(z)
    weights = joint - log_normal(z, mean, log_variance)
    torch.testing.assert_close(weights, model.evidence(x), rtol=0, atol=1e-5)  # σ itself is kept in float32
    bound = bounds(model, likelihood, x.view(5, 1, 1, 7), mean, log_variance, 4)
    torch.testing.assert_close(bound.iwae, model.evidence(x), rtol=0, atol=1e-5)


def test_the_bound_with_the_kl_in_closed_form_equals_the_evidence():
    model, likelihood = Linear(7, 3), Gaussian(0.7).double()
    with torch.no_grad():
        likelihood.log_sigma.fill_(math.log(0.7))
    x = torch.randn(5, 7, **DOUBLE) * 2
    mean, log_variance = model.posterior(x)
    # E_q‖x − Wz − b‖² = ‖x − Wμ − b‖² + tr(W S Wᵀ)
    spread = (model.weight.square().sum(0) * log_variance.exp()).sum(1)
    distance = (x - model.bias - mean @ model.weight.T).square().sum(1) + spread
    expected = -0.5 * distance / 0.49 - 3.5 * math.log(2 * math.pi * 0.49)
    torch.testing.assert_close(
        expected - kl_per_latent(mean, log_variance).sum(1), model.evidence(x), rtol=0, atol=1e-8
    )
    sampled = bounds(model, likelihood, x.view(5, 1, 1, 7), mean, log_variance, 4000).elbo
    deviation = (sampled - model.evidence(x)).abs()
    one = [bounds(model, likelihood, x.view(5, 1, 1, 7), mean, log_variance, 1).elbo for _ in range(300)]
    assert (deviation < 4 * torch.stack(one).std(0) / 4000**0.5).all()


def test_trained_with_beta_1_a_linear_model_reaches_pcas_likelihood():
    """Lucas et al. 2019 (arXiv 1911.02469): the linear VAE's best evidence is probabilistic PCA's."""
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    truth = Linear(6, 2)
    x = torch.randn(400, 2, **DOUBLE) @ truth.weight.T + truth.bias + 0.7 * torch.randn(400, 6, **DOUBLE)
    encoder, decoder = nn.Linear(6, 2, **DOUBLE), nn.Linear(2, 6, **DOUBLE)
    likelihood, log_variance = Gaussian().double(), nn.Parameter(torch.zeros(2, **DOUBLE))
    parameters = [*encoder.parameters(), *decoder.parameters(), *likelihood.parameters(), log_variance]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        mean = encoder(x)
        spread = (decoder.weight.square().sum(0) * log_variance.exp()).sum()  # of the draws around the mean
        distortion = -likelihood.log_prob(x.view(400, 1, 1, 6), decoder(mean).view(400, 1, 1, 6))
        distortion = distortion + spread / (2 * likelihood.sigma**2)
        found = (distortion + kl_per_latent(mean, log_variance.expand(400, 2)).sum(1)).mean()
        found.backward()
        return found

    optimizer.step(loss)
    decoder.decode = lambda z: decoder(z).view(len(z), 1, 1, 6)
    with torch.no_grad():
        found = bounds(decoder, likelihood, x.view(400, 1, 1, 6), encoder(x), log_variance.expand(400, 2), 100)
    best = PCA(2).fit(x.numpy()).score(x.numpy())
    assert found.elbo.mean().item() == pytest.approx(best, abs=0.02)
    assert found.iwae.mean().item() == pytest.approx(best, abs=0.02)


def test_gradients_through_the_draw_are_the_numerical_ones():
    network, likelihood, images = small("gaussian")
    network, likelihood = network.double(), likelihood.double()
    x = (images / 16).double()
    mean = torch.randn(6, 3, **DOUBLE, requires_grad=True)
    logs = torch.randn(6, 3, **DOUBLE, requires_grad=True)
    network.decode = lambda z: network.decoder(z)  # without the cast to float32

    def loss(mean: Tensor, logs: Tensor) -> Tensor:
        z = draw(mean, logs, torch.Generator().manual_seed(1))
        return kl_per_latent(mean, logs).sum() - likelihood.log_prob(x, network.decode(z)).sum() * 1e-2

    assert torch.autograd.gradcheck(loss, (mean, logs), eps=1e-7, atol=1e-4, rtol=1e-4)


# The network


def test_the_network_at_the_papers_size():
    assert sum(p.numel() for p in VAE(ImageSpec(1, 28, 28, 256)).parameters()) == 1_700_609


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 2, 3), (1, 28, 28), (3, 32, 32), (1, 17, 16)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_decoder_is_the_encoders_mirror(shape, batch_norm):
    network = VAE(ImageSpec(*shape, 17), latent=2, hidden=5, batch_norm=batch_norm)
    outputs, mean, log_variance = network(torch.randint(0, 17, (3, *shape), dtype=torch.uint8))
    assert outputs.shape == (3, *shape) and mean.shape == log_variance.shape == (3, 2)
    with torch.no_grad():
        network.encoder[-1].bias.fill_(1e6)
    assert network(torch.zeros(3, *shape))[2].max() == 12, "log σ² is clamped"


def test_what_cannot_be_is_said():
    spec = ImageSpec(1, 8, 8, 17)
    for options in ({"latent": 0}, {"latent": 2.5}, {"hidden": 0}):
        with pytest.raises(UsageError, match=r"^model\.(latent|hidden) is .* 1 or more\.$"):
            VAE(spec, **options)
    with pytest.raises(UsageError, match="vae models images, but the data is a TextSpec"):
        VAE(TextSpec("ab"))
    with pytest.raises(UsageError, match="halves images, which 1×8 does not allow"):
        VAE(ImageSpec(1, 1, 8, 17))
    for sigma in ("learned", 0.1):
        with pytest.raises(UsageError, match=r"likelihood=bernoulli has no sigma"):
            make_likelihood("bernoulli", 17, sigma)
    with pytest.raises(UsageError, match=r"'gausian' \(did you mean 'gaussian'\?\): choose one of bernoulli"):
        make_likelihood("gausian", 17)
    for sigma in (0, -1.0, "x", True, 1e9):
        with pytest.raises(UsageError, match=r"sigma is .* or learned"):
            make_likelihood("gaussian", 17, sigma)
