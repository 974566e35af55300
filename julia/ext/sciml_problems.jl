# Nets as problems of SciML's packages, with everything that their solvers can use.

# Their solvers may hand over views, matrices of other kinds, other number types; our functions work on arrays of the
# net's.
point(::AbstractNet{T}, u) where {T} = convert(Vector{T}, u)
fill_with!(f!, ::AbstractNet{T}, out::Array{T}) where {T} = (f!(out); out)
fill_with!(f!, ::AbstractNet{T}, out) where {T} = copyto!(out, f!(Array{T}(out)))

"The Jacobian of a larger net is a matrix only for solvers that insist on one: its products are cheap."
prototype(net::AbstractNet{T}) where {T} = (n = n_params(net); n <= MLPGF.DENSE_LIMIT ? zeros(T, n, n) : nothing)

"""
    ODEFunction(net; tauinv = 1)

The right-hand side -tauinv ∘ ∇L of the gradient flow of `net` (in place, without parameters), with `jac` = -tauinv ∘
∇²L, the products `jvp` and `vjp`, `tgrad`, and up to $(MLPGF.DENSE_LIMIT) parameters a dense `jac_prototype`.
"""
function ODEFunction(net::AbstractNet{T}; tauinv=1) where {T}
    P = n_params(net)
    tauinv isa Real || length(tauinv) == P ||
        throw(DimensionMismatch("tauinv has length $(length(tauinv)), the net has $P parameters."))
    all(τ -> 0 <= τ < Inf, tauinv) || throw(ArgumentError("tauinv must be finite and not negative."))
    rate = tauinv isa Real ? -T(tauinv) : Vector{T}(-tauinv)
    velocity!(du, u, _, t) = (fill_with!(g -> gradient!(g, net, point(net, u)), net, du); du .*= rate; nothing)
    jacobian!(J, u, _, t) = (fill_with!(H -> hessian!(H, net, point(net, u)), net, J); J .*= rate; nothing)
    product!(Jv, v, u, _, t) =
        (fill_with!(y -> hvp!(y, net, point(net, u), point(net, v)), net, Jv); Jv .*= rate; nothing)
    transposed!(Jv, v, u, _, t) =
        (fill_with!(y -> hvp!(y, net, point(net, u), point(net, v .* rate)), net, Jv); nothing)
    nothing_in_time!(dT, u, _, t) = (fill!(dT, 0); nothing)
    return ODEFunction{true,SciMLBase.FullSpecialize}(velocity!; jac=jacobian!, tgrad=nothing_in_time!, jvp=product!,
                                                      vjp=transposed!, jac_prototype=prototype(net))
end

"""
    ODEProblem(net, x0, tspan; tauinv = 1, options...)

The gradient flow of `net` from the parameters `x0` as a problem for any of SciML's solvers of ordinary differential
equations, with the derivatives of `ODEFunction(net)`; other `options` are those of `ODEProblem`. What [`flow`](@ref)
does beyond a solver's step is not in it: no stop where the flow has arrived, no kinks.

# Example
    using OrdinaryDiffEqRosenbrock: Rodas5P, solve
    solution = solve(ODEProblem(net, x0, (0.0, 100.0)), Rodas5P(); abstol = 1e-8, reltol = 1e-8)
"""
function ODEProblem(net::AbstractNet{T}, x0::AbstractVector, tspan; tauinv=1, options...) where {T}
    check_start(net, x0)
    return ODEProblem(ODEFunction(net; tauinv=tauinv), Vector{T}(x0), tspan; options...)
end

check_start(net, x0) = length(x0) == n_params(net) ||
    throw(DimensionMismatch("x0 has length $(length(x0)), the net has $(n_params(net)) parameters."))

"""
    OptimizationFunction(net)

The loss of `net` for Optimization.jl, with gradient, Hessian and Hessian-vector products; up to $(MLPGF.DENSE_LIMIT)
parameters with a dense `hess_prototype`.
"""
function OptimizationFunction(net::AbstractNet{T}) where {T}
    value(u, p) = loss(net, point(net, u))
    grad!(G, u, p) = (fill_with!(g -> gradient!(g, net, point(net, u)), net, G); nothing)
    hess!(H, u, p) = (fill_with!(h -> hessian!(h, net, point(net, u)), net, H); nothing)
    hv!(y, u, v, p) = (fill_with!(z -> hvp!(z, net, point(net, u), point(net, v)), net, y); nothing)
    function fg!(G, u, p)
        L = Ref(zero(T))
        fill_with!(g -> (L[] = value_and_gradient!(g, net, point(net, u)); g), net, G)
        return L[]
    end
    function fgh!(G, H, u, p)
        hess!(H, u, p)
        return fg!(G, u, p)
    end
    return OptimizationFunction{true}(value, SciMLBase.NoAD(); grad=grad!, hess=hess!, hv=hv!,
                                      fg=fg!, fgh=fgh!, hess_prototype=prototype(net))
end

"""
    OptimizationProblem(net, x0; options...)

The minimisation of the loss of `net` from the parameters `x0` as a problem for any of Optimization.jl's solvers, with
the derivatives of `OptimizationFunction(net)`; `options` are those of `OptimizationProblem`, bounds among them.

# Example
    using OptimizationOptimJL
    solution = solve(OptimizationProblem(net, x0), NewtonTrustRegion())
"""
function OptimizationProblem(net::AbstractNet{T}, x0::AbstractVector; options...) where {T}
    check_start(net, x0)
    return OptimizationProblem(OptimizationFunction(net), Vector{T}(x0); options...)
end
