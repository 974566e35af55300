# Systems (I + γh H) u = b of implicit steps, with the Hessian as a matrix or by products only.

"""
    ShiftedSystem{T}

Solves `(I + γh H) u = b`, scaled to `(α I + β H) u = α b` with (α, β) from [`shift_and_scale`](@ref).

- `refresh!(system, problem, y)`: H is that of `y` from now on.
- `prepare!(system, γ, h, escape) -> Bool`: the step; `false` if a direction is so unstable that the step would not
  follow it, or if the matrix is not positive definite.
- `solve_shifted!(u, system, problem, state, target) -> Bool`: overwrite the right-hand side `u` with the solution, to
  a residual of weighted norm `target` if the solution is not exact; `false` where H turns out to be too indefinite.
"""
abstract type ShiftedSystem{T} end

"""
Beyond so many parameters TRBDF2 and QNDF use products, whatever the number of samples: see the times in
methods/auto.jl.
"""
const DENSE_LIMIT = 500

shifted_system(::Type{T}, n::Int, linsolve::Symbol) where {T} =
    linsolve == :cholesky || linsolve == :auto && n <= DENSE_LIMIT ? DenseSystem(T, n) : KrylovSystem(T, n)

function check_linsolve(linsolve::Symbol)
    linsolve in (:auto, :cholesky, :krylov) ||
        throw(ArgumentError("linsolve = :$linsolve is not known; it can be :auto, :cholesky or :krylov."))
    return linsolve
end

name_suffix(::ShiftedSystem) = ""

"""
(1, step) while that is small, (1 / step, 1) beyond: neither overflows for any step. The shift stays positive where
1 / step underflows, for the sake of directions without any curvature.
"""
function shift_and_scale(::Type{T}, step::Float64) where {T}
    step <= 1 && return one(T), T(step)
    return max(T(1 / step), sqrt(floatmin(T))), one(T)
end

mutable struct DenseSystem{T<:AbstractFloat} <: ShiftedSystem{T}
    H::Matrix{T}
    W::Matrix{T}             # lower triangle: Cholesky factor
    norm::Float64            # Frobenius norm of H
    α::T
    β::T
end
DenseSystem(::Type{T}, n::Int) where {T} = DenseSystem{T}(zeros(T, n, n), zeros(T, n, n), 0.0, one(T), zero(T))

function refresh!(system::DenseSystem, problem::FlowProblem, y)
    hessian_at!(system.H, problem, y)
    system.norm = lower_norm(system.H)
    return nothing
end

"""
Factor `α I + β H ∝ I + γ h H`. `false` if a direction is so unstable that the step would not follow it.
Eigenvalues within round-off of zero count as zero: where they are what makes the matrix indefinite it is
shifted by that much, and the error estimate answers for the rest.
"""
function prepare!(system::DenseSystem{T}, γ::Float64, h::Float64, escape::Float64) where {T}
    W, H = system.W, system.H
    roundoff = 4 * eps(T) * T(system.norm)
    if system.norm * h > escape            # else no eigenvalue can be that negative
        α, β = shift_and_scale(T, h / escape)
        form!(W, H, α, β)
        if !cholesky_lower!(W)
            form!(W, H, α + β * roundoff, β)
            cholesky_lower!(W) || return false
        end
    end
    system.α, system.β = α, β = shift_and_scale(T, γ * h)
    form!(W, H, α, β)
    cholesky_lower!(W) && return true
    form!(W, H, α + β * roundoff, β)
    return cholesky_lower!(W)
end

function solve_shifted!(u::Vector{T}, system::DenseSystem{T}, problem, state, target) where {T}
    cholesky_solve!(system.W, u)
    return true
end

function form!(W::Matrix{T}, H::Matrix{T}, α::T, β::T) where {T}
    n = size(H, 1)
    for j in 1:n
        @inbounds @simd for i in j:n
            W[i, j] = β * H[i, j]
        end
        W[j, j] += α
    end
    return W
end

function lower_norm(H::Matrix)
    n = size(H, 1)
    s = 0.0
    for j in 1:n
        column = zero(eltype(H))
        @inbounds @simd for i in j:n
            column += H[i, j]^2
        end
        s += 2 * Float64(column) - Float64(H[j, j])^2
    end
    return sqrt(max(s, 0.0))
end

"""
Conjugate gradients on Hessian-vector products, in memory of 4P numbers. The Lanczos matrix that belongs to them shows
unstable directions without further products.
"""
mutable struct KrylovSystem{T<:AbstractFloat} <: ShiftedSystem{T}
    point::Vector{T}         # where H is taken
    residual::Vector{T}
    direction::Vector{T}
    product::Vector{T}
    α::T
    β::T
    limit::T                 # α + βλ must stay above this: directions below it are too unstable
    norm::T                  # of H, as far as products have shown it
end
KrylovSystem(::Type{T}, n::Int) where {T} =
    KrylovSystem{T}(zeros(T, n), zeros(T, n), zeros(T, n), zeros(T, n), one(T), zero(T), zero(T), zero(T))

name_suffix(::KrylovSystem) = " with a Krylov method"

function refresh!(system::KrylovSystem, problem::FlowProblem, y)
    copyto!(system.point, y)
    return nothing
end

function prepare!(system::KrylovSystem{T}, γ::Float64, h::Float64, escape::Float64) where {T}
    system.α, system.β = shift_and_scale(T, γ * h)
    # hλ > -escape means α + βλ > α (1 - γ escape)
    system.limit = system.α * T(max(1 - γ * escape, 0.0))
    return true
end

const KRYLOV_ITERATIONS = 500

function solve_shifted!(u::Vector{T}, system::KrylovSystem{T}, problem::FlowProblem{T}, state::FlowState{T},
                        target::Float64) where {T}
    r, p, q = system.residual, system.direction, system.product
    β = system.β
    α = system.α + β * (4 * eps(T) * system.norm)      # eigenvalues within round-off of zero are not negative
    copyto!(r, u)
    copyto!(p, r)
    fill!(u, zero(T))
    rr = LinearAlgebra.dot(r, r)
    first_rr = rr
    rr <= floatmin(T) && return true               # squares that underflow
    isfinite(rr) || return false
    # Pivots of the Lanczos matrix less `limit`: one that is not positive reveals a direction too unstable.
    step_before, ratio, pivot = zero(T), zero(T), zero(T)
    for iteration in 1:KRYLOV_ITERATIONS
        hvp_at!(q, problem, system.point, p)
        @inbounds @simd for i in eachindex(q)
            q[i] = α * p[i] + β * q[i]
        end
        system.norm = max(system.norm, sqrt(LinearAlgebra.dot(q, q) / LinearAlgebra.dot(p, p)) / β)
        curvature = LinearAlgebra.dot(p, q)
        curvature > 0 || return false                  # also false for NaN
        step = rr / curvature
        diagonal = 1 / step + (iteration == 1 ? zero(T) : ratio / step_before)
        pivot = diagonal - system.limit - (iteration == 1 ? zero(T) : ratio / step_before^2 / pivot)
        pivot > -sqrt(eps(T)) * abs(diagonal) || return false
        iszero(pivot) && (pivot = eps(T) * diagonal)
        add_scaled!(u, step, p)
        add_scaled!(r, -step, q)
        rr_new = LinearAlgebra.dot(r, r)
        # Also relative to the right-hand side, for the sake of an escape that is still below the tolerance.
        if rr_new <= T(1e-6) * first_rr && point_norm(r, problem, state) <= target * Float64(system.α)
            return true
        end
        rr_new <= (100 * eps(T))^2 * first_rr && return true
        ratio = rr_new / rr
        step_before = step
        @inbounds @simd for i in eachindex(p)
            p[i] = r[i] + ratio * p[i]
        end
        rr = rr_new
    end
    return false
end

"Norm of `v` relative to the tolerance at the current point."
point_norm(v::Vector{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T} =
    weighted_norm(v, state.y, state.y, problem.root, T(state.abstol), T(state.reltol), max(problem.n, 1))
