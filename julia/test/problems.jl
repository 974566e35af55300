# The problems that every solver runs on: flows and minima, with what is known of them.
using LinearAlgebra
using MLPGF
import MLPGF: AbstractNet, gradient!, hessian!, hvp!, loss, n_params, value_and_gradient!

"""
    Rotated(terms, Q)

`L(x) = Σᵢ fᵢ(uᵢ)` with `u = Qᵀx`. A term knows its value, two derivatives, and its flow `u(t)` from `u0`.
"""
struct Rotated{T} <: AbstractNet{T}
    terms::Vector{Tuple{Symbol,T}}
    Q::Matrix{T}
end

# λu²/2; λu⁴/4, a minimum without curvature; λ(u² - 1)²/4, a saddle between two minima.
value(kind, λ, u) = kind == :square ? λ * u^2 / 2 : kind == :quartic ? λ * u^4 / 4 : λ * (u^2 - 1)^2 / 4
slope(kind, λ, u) = kind == :square ? λ * u : kind == :quartic ? λ * u^3 : λ * (u^3 - u)
curvature(kind, λ, u) = kind == :square ? λ : kind == :quartic ? 3λ * u^2 : λ * (3u^2 - 1)
flow_of(kind, λ, u, t) = kind == :square ? u * exp(-λ * t) : kind == :quartic ? u / sqrt(1 + 2λ * t * u^2) :
                         u * exp(λ * t) / sqrt(1 + u^2 * expm1(2λ * t))

n_params(r::Rotated) = length(r.terms)
loss(r::Rotated, x) = sum(value(k, λ, u) for ((k, λ), u) in zip(r.terms, r.Q' * x))
# No array is made in here: the solvers' allocations are counted.
function value_and_gradient!(g::Vector{T}, r::Rotated{T}, x::Vector{T}) where {T}
    fill!(g, zero(T))
    total = zero(T)
    for (i, (kind, λ)) in enumerate(r.terms)
        u = zero(T)
        for j in eachindex(x)
            u += r.Q[j, i] * x[j]
        end
        total += value(kind, λ, u)
        d = slope(kind, λ, u)
        for j in eachindex(g)
            g[j] += d * r.Q[j, i]
        end
    end
    return total
end
gradient!(g::Vector{T}, r::Rotated{T}, x::Vector{T}) where {T} = (value_and_gradient!(g, r, x); g)
function hessian!(H::Matrix{T}, r::Rotated{T}, x::Vector{T}) where {T}
    fill!(H, zero(T))
    for (i, (kind, λ)) in enumerate(r.terms)
        u = zero(T)
        for j in eachindex(x)
            u += r.Q[j, i] * x[j]
        end
        d = curvature(kind, λ, u)
        for k in eachindex(x), j in eachindex(x)
            H[j, k] += d * (r.Q[j, i] * r.Q[k, i])
        end
    end
    return H
end
function hvp!(y::Vector{T}, r::Rotated{T}, x::Vector{T}, v::Vector{T}) where {T}
    fill!(y, zero(T))
    for (i, (kind, λ)) in enumerate(r.terms)
        u, w = zero(T), zero(T)
        for j in eachindex(x)
            u += r.Q[j, i] * x[j]
            w += r.Q[j, i] * v[j]
        end
        for j in eachindex(y)
            y[j] += curvature(kind, λ, u) * w * r.Q[j, i]
        end
    end
    return y
end

orthogonal(T, n) = (Q = Matrix(qr([sin(i * j + 0.3i) for i in 1:n, j in 1:n]).Q); Matrix{T}(Q))

"""
    Problem

`name`, `net`, start `x0`, a time `T` worth flowing to; `exact(t)`, the flow from `x0`, or `nothing`; `minloss`, the
loss of the minimum that the flow leads to, or `nothing`; `isolated`, whether that minimum is a point with positive
curvature.
"""
struct Problem{N,E}
    name::String
    net::N
    x0::Vector
    T::Float64
    exact::E
    minloss::Union{Nothing,Float64}
    isolated::Bool
end
Base.show(io::IO, p::Problem) = print(io, p.name)

function rotated(::Type{S}, name, terms, u0, T; isolated=true) where {S}
    Q = orthogonal(S, length(terms))
    exact(t) = Q * [flow_of(k, S(λ), S(u), S(t)) for ((k, λ), u) in zip(terms, u0)]
    return Problem(name, Rotated{S}([(k, S(λ)) for (k, λ) in terms], Q), Q * collect(S, u0), T, exact, 0.0, isolated)
end

"Standard normal numbers that a seed gives on every version of Julia, where the kind of a point depends on them."
function normal(seed, dims...)
    rng = MLPGF.Xoshiro256(seed)
    return reshape([MLPGF.normal!(rng) for _ in 1:prod(dims)], dims)
end

# Inputs of a fixed, irregular pattern, so that the table needs no random generator.
inputs(T, D, N) = T[1.5 * sin(1.3 * i * d + 0.7 * i^2 / (d + 1) + d) + 0.3 * cos(2.1i) for d in 1:D, i in 1:N]

function student(::Type{T}, name, hidden, teacher, D, N; seed=1, horizon=10.0, minloss=nothing) where {T}
    X = inputs(T, D, N)
    layers(ks) = (((k, f, true) for (k, f) in ks)..., (1, MLPGF.activation("identity"), true))
    guide = Net(layers=layers(teacher), input=X, target=zeros(T, 1, N))
    net = Net(layers=layers(hidden), input=X, target=predict(guide, 2 .* random_params(10, guide)))
    return Problem(name, net, random_params(seed, net), horizon, nothing, minloss, false)
end

"""
    test_problems(T = Float64) -> Vector{Problem}

Quadratic, stiff linear flow, saddle start, flat valley (closed forms); the 33- and 601-parameter students of a teacher
with 4 units, a deep narrow net, an overparameterised net whose minimum is zero.
"""
function test_problems(::Type{T}=Float64) where {T}
    return Problem[
        rotated(T, "quadratic", [(:square, λ) for λ in (0.5, 1.0, 2.0, 5.0, 10.0)], (1, -1, 2, 0.5, 1), 3.0),
        rotated(T, "stiff", [(:square, λ) for λ in (1e-3, 0.03, 1.0, 1e2, 1e4, 1e6)], (1, 2, 1, -1, 1, 1), 20.0),
        rotated(T, "saddle", [(:well, 1.0), (:square, 0.3), (:square, 50.0)], (1e-6, 1, 1), 16.0),
        rotated(T, "flat valley", [(:quartic, 1.0), (:square, 1.0), (:square, 300.0)], (1, 1, -1), 100.0;
                isolated=false),
        student(T, "33 parameters", [(8, softplus)], [(4, softplus)], 2, 100; minloss=0.0),
        student(T, "601 parameters", [(150, softplus)], [(4, softplus)], 2, 60; horizon=0.5, minloss=0.0),
        student(T, "deep and narrow", [(3, tanh) for _ in 1:4], [(2, tanh), (2, tanh)], 2, 40),
        student(T, "zero loss", [(12, tanh)], [(3, tanh)], 3, 15; minloss=0.0)]
end
