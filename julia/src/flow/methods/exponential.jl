"""
    Exprb53s3()

Exponential Rosenbrock method of order 5(3) in three stages on the eigendecomposition of the Hessian, with an
interpolant of order 4: three gradients, one exact Hessian and one symmetric eigenproblem a step. The linear part of
the flow is followed exactly: what is stiff needs no care, and an escape direction grows at its own rate however long
the step.

V. T. Luan and A. Ostermann, *Exponential Rosenbrock methods of order five*, J. Comput. Appl. Math. 255 (2014) 417–431.
Of the same cost is Exprb43 (order 4(3) with c₃ = 1), which was tried: at equal steps its error is 30 to 100 times as
large on nets of 33 to 61 parameters.
"""
struct Exprb53s3 <: FlowMethod end

# With J = -H, f = -∇L, z = hJ and n(s) = f(y(s)) - f - J (y(s) - y) = s² (d₂ + s d₃) through the stages at c₂ and c₃,
#     y(s) = y + h (s φ₁(sz) f + 2 s³ φ₃(sz) d₂ + 6 s⁴ φ₄(sz) d₃),
# which at s = 1 is the solution, without d₃ the embedded one of order 3, and between the interpolant of order 4.
# Theirs is the difference of orders 3 and 5. On nets of 33 to 61 parameters it is 30 to 500 times the true error at
# tolerances from 1e-4 to 1e-8: a tenth of it keeps that below the tolerance.
const EXPRB53_ESTIMATE = 0.1
const EXPRB53_C2, EXPRB53_C3 = 1 // 2, 9 // 10

"""
    ExponentialCache{T}

The state of a method whose continuous solution, [`continuous!`](@ref), is no polynomial. The interpolant is the
polynomial of degree 5 that has its values at `nodes`; `vandermonde` makes coefficients of them (both are empty until
then). `polynomial` has room for `6n` coefficients, `step` and `gradient` for `n` numbers.
"""
abstract type ExponentialCache{T} <: StepCache{T} end

interpolant_degree(::ExponentialCache) = 5
escape_limit(::ExponentialCache, reltol::Float64) = 1.0

# These methods have no limit of stability.
function measure!(::ExponentialCache, state::FlowState)
    state.stiffness = 0.0
    state.longest = Inf
    return nothing
end

"Chebyshev's nodes of degree 5 on a step, and the matrix from values there to coefficients."
function chebyshev_fit(::Type{T}) where {T}
    nodes = T[(1 - cos(T(π) * k / 5)) / 2 for k in 0:5]
    return nodes, inv([s^m for s in nodes, m in 0:5])
end

fit!(cache::ExponentialCache{T}) where {T} = ((cache.nodes, cache.vandermonde) = chebyshev_fit(T); nothing)

mutable struct Exprb53Cache{T<:AbstractFloat} <: ExponentialCache{T}
    H::Matrix{T}
    eigen::SymmetricEigen{T}
    fresh::Bool
    f::Vector{T}             # f, n at the two stages and the step, all in the basis of eigenvectors
    n2::Vector{T}
    n3::Vector{T}
    step::Vector{T}
    gradient::Vector{T}
    nodes::Vector{T}
    vandermonde::Matrix{T}   # from values at the nodes to coefficients
    polynomial::Vector{T}    # of the step, where a continuous solution is asked for
end

function Exprb53Cache(::Type{T}, n::Int) where {T}
    z() = zeros(T, n)
    return Exprb53Cache{T}(zeros(T, n, n), SymmetricEigen{T}(n), false, z(), z(), z(), z(), z(), T[], zeros(T, 0, 0),
                           zeros(T, 6n))
end

make_state(::Exprb53s3, ::Type{T}, n::Int) where {T} = Exprb53Cache(T, n)
method_name(::Exprb53Cache) = "Exprb53s3"
controller(::Exprb53Cache) = Controller(true, 4)
watch_escape(::Exprb53Cache) = false

"""
    phi(z) -> (φ₁, φ₂, φ₃, φ₄)

φ₀ = e^z, φ_{k+1}(z) = (φ_k(z) - 1/k!)/z. Near zero by the series of φ₄ and the recurrence downwards.
"""
function phi(z::T) where {T}
    if abs(z) >= 1
        φ1 = expm1(z) / z
        φ2 = (φ1 - 1) / z
        φ3 = (φ2 - T(1) / 2) / z
        return φ1, φ2, φ3, (φ3 - T(1) / 6) / z
    end
    term = φ4 = T(1) / 24
    k = 4
    while abs(term) > eps(T) / 64
        k += 1
        term *= z / k
        φ4 += term
    end
    φ3 = z * φ4 + T(1) / 6
    φ2 = z * φ3 + T(1) / 2
    return z * φ2 + 1, φ2, φ3, φ4
end

function step!(cache::Exprb53Cache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    if !cache.fresh
        hessian_at!(cache.H, problem, state.y)
        decompose!(cache.eigen, cache.H) || return false
        cache.fresh = true
    end
    eigen, f, n2, n3, step, y = cache.eigen, cache.f, cache.n2, cache.n3, cache.step, state.ynew
    λ = eigen.values
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    c2, c3 = T(EXPRB53_C2), T(EXPRB53_C3)
    rotate!(f, 'T', eigen, state.g)
    @inbounds for i in eachindex(f)
        f[i] = -f[i]
        step[i] = (c2 * h * phi(-c2 * h * λ[i])[1]) * f[i]       # φ f alone would underflow for the longest steps
    end
    nonlinear_part!(n2, cache, problem, state)
    @inbounds for i in eachindex(f)
        near, far = phi(-c2 * h * λ[i]), phi(-c3 * h * λ[i])
        step[i] = (c3 * h * far[1]) * f[i] + (h * (T(27) / 25 * near[3] + T(729) / 125 * far[3])) * n2[i]
    end
    nonlinear_part!(n3, cache, problem, state)
    @inbounds for i in eachindex(f)
        φ1, _, φ3, φ4 = phi(-h * λ[i])
        d2, d3 = cubic(n2[i], n3[i], c2, c3)
        n2[i], n3[i] = d2, d3
        error = (6 * h * φ4) * d3
        step[i] = (h * φ1) * f[i] + (2 * h * φ3) * d2 + error
        cache.gradient[i] = T(EXPRB53_ESTIMATE) * error
    end
    rotate!(state.err, 'N', eigen, cache.gradient)
    rotate!(y, 'N', eigen, step)
    add_scaled!(y, one(T), state.y)
    state.evaluated = false
    state.continuous && interpolation_error!(state.err, cache, problem, state)
    return true
end

# n at y + step: f there, less its linear part at y.
function nonlinear_part!(n, cache::Exprb53Cache{T}, problem, state) where {T}
    eigen, step, y = cache.eigen, cache.step, state.ynew
    rotate!(y, 'N', eigen, step)
    add_scaled!(y, one(T), state.y)
    gradient_at!(cache.gradient, problem, y)
    rotate!(n, 'T', eigen, cache.gradient)
    @inbounds @simd for i in eachindex(n)
        n[i] = eigen.values[i] * step[i] - n[i] - cache.f[i]
    end
    return n
end

# d₂ and d₃ from c² (d₂ + c d₃) at the two stages.
@inline function cubic(n2, n3, c2, c3)
    a, b = n2 / c2^2, n3 / c3^2
    d3 = (b - a) / (c3 - c2)
    return a - c2 * d3, d3
end

function accepted!(cache::Exprb53Cache)
    cache.fresh = false
    return nothing
end

# However long the step, its end may be exact; a polynomial can only follow a decay that it resolves. Where one is asked
# for, its distance from the continuous solution between the last two nodes counts as an error too.
function interpolation_error!(err, cache::ExponentialCache{T}, problem, state) where {T}
    c, s = cache.polynomial, T(1) / 20
    interpolant!(c, 0, cache, problem, state)
    continuous!(cache.gradient, cache, state, s)
    evaluate_step!(cache.step, c, 0, 5, s)
    @inbounds for i in eachindex(err)
        err[i] = max(abs(err[i]), abs(cache.step[i] - state.y[i] - cache.gradient[i]))
    end
    return err
end

"y(s) - y(0) of the formula at the head of this file."
function continuous!(out, cache::Exprb53Cache{T}, state, s::T) where {T}
    f, step, λ = cache.f, cache.step, cache.eigen.values
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    @inbounds for i in eachindex(f)
        φ1, _, φ3, φ4 = phi(-s * h * λ[i])
        step[i] = (s * h * φ1) * f[i] + (2 * s^3 * h * φ3) * cache.n2[i] + (6 * s^4 * h * φ4) * cache.n3[i]
    end
    return rotate!(out, 'N', cache.eigen, step)
end

# The continuous solution is no polynomial: the one of degree 5 through its values at Chebyshev's nodes is.
function interpolant!(c::Vector{T}, offset::Int, cache::ExponentialCache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    n, value = problem.n, cache.gradient
    copyto!(c, offset + 1, state.y, 1, n)
    for i in offset+n+1:offset+6n
        c[i] = zero(T)
    end
    isempty(cache.nodes) && unknown(fit!)(cache)
    for k in 2:length(cache.nodes)
        s = cache.nodes[k]
        continuous!(value, cache, state, s)
        for m in 1:5
            weight, at = cache.vandermonde[m+1, k], offset + m * n
            @inbounds @simd for i in 1:n
                c[at+i] += weight * value[i]
            end
        end
    end
    return nothing
end

register!(FLOW_METHODS, "Exprb53s3", Exprb53s3(),
          "exponential Rosenbrock method of order 5 on the Hessian's eigenvectors (Luan and Ostermann 2014)";
          matrices=4, when="one step at a time: where a past is worth nothing")
