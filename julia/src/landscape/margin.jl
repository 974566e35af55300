# Separable classes: the parameters grow for ever, and their direction tends to that of the largest margin.

"""
    maximum_margin(net) -> θ

For a net of one layer whose classes are separable: the parameters of least norm for which, at every sample, the logit
of its label is larger than each other by at least 1. Gradient flow on the negative log-likelihood tends to their
direction (Soudry, Hoffer, Nacson, Gunasekar and Srebro, The implicit bias of gradient descent on separable data, JMLR
19, 2018). By the non-negative least squares of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23),
which end after finitely many steps. An empty vector if the classes are not separable.
"""
function maximum_margin(net::Net{T}) where {T}
    length(net.layers) == 1 && net.objective isa NegativeLogLikelihood ||
        throw(ArgumentError("the largest margin is that of a net of one layer with negative log-likelihood"))
    return Vector{T}(least_norm(margins(net)))
end

"The θ of least norm for which all of A θ are at least 1, or `none` where there is none."
function least_norm(A::Matrix{Float64}; none=Float64[])
    M, P = size(A)
    E, f = [transpose(A); ones(1, M)], [zeros(P); 1.0]
    u = nonnegative_least_squares(E, f)
    r = E * u - f
    norm(r) <= sqrt(eps()) && return none
    support = findall(>(0), u)
    θ = pinv(A[support, :]) * ones(length(support))         # to rounding, once it is known who lies on the margin
    return minimum(A * θ) >= 1 - 1e-9 ? θ : none
end

"A row for each sample and each other class, whose product with θ is how much larger the logit of the label is."
function margins(net::Net)
    layer, rows = net.layers[1], Vector{Float64}[]
    i = 0
    for block in net.blocks, r in 1:min(block.n, n_samples(net) - i)
        i += 1
        block.w[r] > 0 || continue
        label = argmax(view(block.Y, r, :))
        x = [Float64.(block.X[r, 1:layer.fan_in]); ones(layer.bias)]
        for o in 1:layer.width
            o == label && continue
            a = zeros(net.n_params)
            a[incoming(layer, label)] = x
            a[incoming(layer, o)] = -x
            push!(rows, a)
        end
    end
    return permutedims(reduce(hcat, rows))
end

"The u ≥ 0 for which ‖E u − f‖ is least."
function nonnegative_least_squares(E::Matrix{Float64}, f::Vector{Float64})
    n = size(E, 2)
    u, free = zeros(n), falses(n)
    tolerance = 10 * eps() * maximum(sum(abs, E; dims=1)) * max(size(E)...)
    for attempt in 1:30n
        slopes = transpose(E) * (f - E * u)
        slopes[free] .= -Inf
        best = argmax(slopes)
        slopes[best] > tolerance || break
        free[best] = true
        while true
            s = zeros(n)
            s[free] = E[:, free] \ f
            all(>(0), s[free]) && (u = s; break)
            # As far as all stay non-negative; those that become zero are held there.
            step = minimum(u[j] / (u[j] - s[j]) for j in findall(free) if s[j] <= 0)
            u += step * (s - u)
            for j in findall(free)
                u[j] <= tolerance && (free[j] = false; u[j] = 0)
            end
            any(free) || break
        end
    end
    return u
end
